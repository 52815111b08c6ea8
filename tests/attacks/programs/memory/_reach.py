# What other processes have open, by their folders below /proc.
import os

root = os.open("/", os.O_RDONLY)


def reach(name, flags):
    """Descriptors of this name in the folders of the parent and of its other children."""
    pids = {os.getppid()}
    for pid in range(max(2, os.getpid() - 60), os.getpid() + 60):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == os.getppid():
                    pids.add(pid)
        except OSError:
            continue
    for pid in pids - {os.getpid()}:
        try:
            yield pid, os.open(f"proc/{pid}/{name}", flags, dir_fd=root)
        except OSError:
            continue
