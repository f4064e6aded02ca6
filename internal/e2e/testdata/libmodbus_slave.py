"""A Modbus slave of libmodbus, through ctypes, with the registers of slave.py.

libmodbus_slave.py rtu DEVICE UNIT | libmodbus_slave.py tcp PORT UNIT

Holding registers 0 and 1 are a 32-bit number, big-endian, that rises by one
with each read; 2 and 3 hold the float 21.5; 4 holds -7; those up to 49 hold 0
and may be written. Input register 0 holds 1000, discrete input 1 is on, coils 0
to 9 are off. A unit that is not asked for stays silent.
Prints "ready" once it serves.
"""
import ctypes
import sys

RTU_HEADER, TCP_HEADER = 1, 7  # bytes before the PDU


class Mapping(ctypes.Structure):
    """modbus_mapping_t of modbus.h."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            "nb_bits", "start_bits", "nb_input_bits", "start_input_bits",
            "nb_input_registers", "start_input_registers", "nb_registers", "start_registers",
        )
    ] + [
        ("bits", ctypes.POINTER(ctypes.c_uint8)),
        ("input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("registers", ctypes.POINTER(ctypes.c_uint16)),
    ]


lib = ctypes.CDLL("libmodbus.so.5", use_errno=True)
lib.modbus_new_rtu.restype = lib.modbus_new_tcp.restype = ctypes.c_void_p
lib.modbus_mapping_new.restype = ctypes.POINTER(Mapping)


def call(name, *args):
    """Calls a function of the library; one that fails ends the program."""
    result = getattr(lib, name)(*args)
    if result in (None, -1):
        sys.exit(f"{name}: errno {ctypes.get_errno()}")
    return result


def answer(context, mapping, header):
    """Answers until the connection ends."""
    request = (ctypes.c_uint8 * 260)()
    answers = 0
    while (size := lib.modbus_receive(context, request)) >= 0:
        if size == 0:
            continue  # for another unit
        function, address = request[header], request[header + 1] << 8 | request[header + 2]
        if function == 3 and address == 0:
            answers += 1
            mapping.contents.registers[0] = answers >> 16
            mapping.contents.registers[1] = answers & 0xFFFF
        lib.modbus_reply(context, request, size, mapping)


def main(kind, where, unit):
    mapping = call("modbus_mapping_new", 10, 10, 50, 50)
    for at, value in enumerate((0, 0, 0x41AC, 0x0000, 0x10000 - 7)):
        mapping.contents.registers[at] = value
    mapping.contents.input_registers[0] = 1000
    mapping.contents.input_bits[1] = 1
    if kind == "rtu":
        context = ctypes.c_void_p(call("modbus_new_rtu", where.encode(), 115200, ctypes.c_char(b"N"), 8, 1))
    else:
        context = ctypes.c_void_p(call("modbus_new_tcp", b"127.0.0.1", int(where)))
    call("modbus_set_slave", context, unit)
    if kind == "rtu":
        call("modbus_connect", context)
        print("ready", flush=True)
        while True:  # a bad frame ends a modbus_receive, not the line
            answer(context, mapping, RTU_HEADER)
    listening = ctypes.c_int(call("modbus_tcp_listen", context, 1))
    print("ready", flush=True)
    while True:
        call("modbus_tcp_accept", context, ctypes.byref(listening))
        answer(context, mapping, TCP_HEADER)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
