"""Test what is read from a text of /proc/cpuinfo."""

from termite.engine.host.machine import parse_cpuinfo

X86 = """processor\t: 0
model name\t: A CPU @ 2.00GHz
cpu MHz\t\t: 2000.123
flags\t\t: fpu sse avx
core id\t\t: 0

processor\t: 1
model name\t: A CPU @ 2.00GHz
cpu MHz\t\t: 900.000
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n"


def test_what_differs_between_the_processors_of_one_machine_does_not_count() -> None:
    name, features = parse_cpuinfo(X86)
    assert name == "A CPU @ 2.00GHz"
    assert parse_cpuinfo(X86.replace("2000.123", "800").replace("core id\t\t: 0", "core id\t\t: 7")) == (name, features)
    assert parse_cpuinfo(X86.replace("sse avx", "avx sse")) == (name, features)
    assert parse_cpuinfo(X86.replace("sse avx", "sse"))[1] != features


def test_a_processor_without_a_name_has_features() -> None:
    assert parse_cpuinfo(ARM)[0] == "0xd0c"
    assert parse_cpuinfo(ARM)[1] != parse_cpuinfo(X86)[1]
    assert parse_cpuinfo("") == ("", b"")
