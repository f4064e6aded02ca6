"""A Modbus slave of pymodbus whose holding registers 0 and 1 count the answers.

slave.py rtu DEVICE [UNIT...] | slave.py tcp PORT [UNIT...]

Registers 0 and 1 are a 32-bit number, big-endian, that rises by one with each
read; registers 2 and 3 hold the float 21.5; register 4 holds -7; those up to 49
hold 0 and may be written. Input register 0 holds 1000, discrete input 1 is on,
coils 0 to 9 are off. Without a UNIT it answers to every unit, otherwise each is
a slave of its own, and other units stay silent.
Prints "ready" once it serves.
"""
import sys

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartSerialServer, StartTcpServer
from pymodbus.transaction import ModbusRtuFramer, ModbusSocketFramer


class Counting(ModbusSequentialDataBlock):
    answers = 0

    def getValues(self, address, count=1):
        if address == 0:
            self.answers += 1
            self.values[0] = self.answers >> 16
            self.values[1] = self.answers & 0xFFFF
        return super().getValues(address, count)


def slave():
    block = Counting(0, [0, 0, 0x41AC, 0x0000, 0x10000 - 7] + [0] * 45)
    return ModbusSlaveContext(
        hr=block,
        ir=ModbusSequentialDataBlock(0, [1000] + [0] * 49),
        di=ModbusSequentialDataBlock(0, [False, True] + [False] * 8),
        co=ModbusSequentialDataBlock(0, [False] * 10),
        zero_mode=True,
    )


units = [int(unit) for unit in sys.argv[3:]]
if units:
    context = ModbusServerContext(slaves={unit: slave() for unit in units}, single=False)
else:
    context = ModbusServerContext(slaves=slave(), single=True)
serve = {"context": context, "ignore_missing_slaves": True}
print("ready", flush=True)
if sys.argv[1] == "rtu":
    StartSerialServer(framer=ModbusRtuFramer, port=sys.argv[2], baudrate=115200, timeout=0.005, **serve)
else:
    StartTcpServer(framer=ModbusSocketFramer, address=("127.0.0.1", int(sys.argv[2])), **serve)
