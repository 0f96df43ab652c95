"""Answers to what people ask a worker through its coordinator.

* worker_questions.py answers, and drains the worker.
* lease_accounts.py sums what jobs use.
* store_sizes.py measures the stores of contents.

The room may import what its parent may, and the parent's modules.
Do not touch: a question is answered between two leases, so nothing here may take long.
"""
