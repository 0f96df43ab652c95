"""All faults, by what they harm. Each module has a tuple FAULTS; the names are unique.

A module may use the scene of its round, and nothing else of the harness.
"""

from tests.torture.faults import crashes, edits, lines, resources, stops, stores, users
from tests.torture.scene import Fault

_MODULES = (crashes, stops, lines, resources, stores, edits, users)
FAULTS: dict[str, Fault] = {fault.name: fault for module in _MODULES for fault in module.FAULTS}
