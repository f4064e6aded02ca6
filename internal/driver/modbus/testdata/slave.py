"""A Modbus slave of pymodbus, whose own encoder fills the registers.

slave.py tcp            Modbus TCP on a free port, which it prints
slave.py udp            the same frames in datagrams, likewise
slave.py rtu DEVICE     RTU on a serial device; prints "ready"

It ends when its standard input does.
"""

import asyncio
import sys

from pymodbus.constants import Endian
from pymodbus.datastore import ModbusServerContext, ModbusSlaveContext, ModbusSparseDataBlock
from pymodbus.payload import BinaryPayloadBuilder
from pymodbus.server import StartAsyncSerialServer, StartAsyncTcpServer, StartAsyncUdpServer
from pymodbus.transaction import ModbusRtuFramer, ModbusSocketFramer


def registers(byteorder, wordorder):
    """Every type, one after the other, in 29 registers."""
    b = BinaryPayloadBuilder(byteorder=byteorder, wordorder=wordorder)
    b.add_16bit_int(-12345)
    b.add_16bit_uint(54321)
    b.add_32bit_int(-1234567890)
    b.add_32bit_uint(4023456789)
    b.add_64bit_int(-1234567890123456789)
    b.add_64bit_uint(17234567890123456789)
    b.add_32bit_float(21.1)
    b.add_64bit_float(-2.718281828459045)
    b.add_32bit_float(float("nan"))
    b.add_string("pymodbus\0\0")
    b.add_16bit_uint(0b0000_0011_0101_0000)
    b.add_16bit_int(215)
    return b.to_registers()


holding = {
    1000: registers(Endian.Big, Endian.Big),
    1100: registers(Endian.Big, Endian.Little),
    1200: registers(Endian.Little, Endian.Big),
    1300: registers(Endian.Little, Endian.Little),
    2000: [7, 8, 9],  # and nothing at 2003
    2004: [10, 11, 12],
}
slave = ModbusSlaveContext(
    co=ModbusSparseDataBlock({10: [True, False, True]}),
    di=ModbusSparseDataBlock({65533: [False, True, True]}),
    hr=ModbusSparseDataBlock(holding),
    ir=ModbusSparseDataBlock({0: registers(Endian.Big, Endian.Big)}),
    zero_mode=True,
)
context = ModbusServerContext(slaves={5: slave}, single=False)


async def main():
    """Serve until standard input ends."""
    if sys.argv[1] == "tcp":
        server = await StartAsyncTcpServer(
            context=context, address=("127.0.0.1", 0), framer=ModbusSocketFramer, defer_start=True
        )
        serving = asyncio.create_task(server.serve_forever())
        await server.serving
        print(server.server.sockets[0].getsockname()[1], flush=True)
    elif sys.argv[1] == "udp":
        server = await StartAsyncUdpServer(
            context=context, address=("127.0.0.1", 0), framer=ModbusSocketFramer, defer_start=True
        )
        serving = asyncio.create_task(server.serve_forever())
        await server.serving
        print(server.protocol.get_extra_info("sockname")[1], flush=True)
    else:
        server = await StartAsyncSerialServer(
            context=context, port=sys.argv[2], framer=ModbusRtuFramer, baudrate=19200, defer_start=True
        )
        await server.start()
        serving = asyncio.create_task(server.serve_forever())
        print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    serving.cancel()


asyncio.run(main())
