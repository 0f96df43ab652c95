"""Amounts as people read them: sizes, and how long ago something was."""


def size_text(size_bytes: float) -> str:
    """Return a size in the largest unit in which it is at least 1, such as `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"
