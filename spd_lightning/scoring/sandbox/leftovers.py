"""Removing what a program made, however it tried to keep it."""

from __future__ import annotations

import contextlib
import os


def remove(folder: str) -> None:
    """Remove a folder whatever its modes and however deep; links in it are not followed.

    One folder is open at a time, and no path is longer than a name.
    """
    os.chmod(folder, 0o700)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    trail: list[str] = []
    ahead = [empty_of_files(here)]
    while True:
        if ahead[-1]:
            name = ahead[-1].pop()
            try:
                if os.stat(name, dir_fd=here, follow_symlinks=False).st_mode & 0o700 != 0o700:
                    os.chmod(name, 0o700, dir_fd=here)
                there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            except OSError:
                continue
            trail.append(name)
            ahead.append(empty_of_files(there))
        elif trail:
            there = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            ahead.pop()
            with contextlib.suppress(OSError):
                os.rmdir(trail.pop(), dir_fd=there)
        else:
            break
        os.close(here)
        here = there
    os.close(here)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def empty_of_files(place: int) -> list[str]:
    """Remove all but folders from a folder, and say which those are."""
    with os.scandir(place) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=place)
    return [name for name, is_folder in found if is_folder]
