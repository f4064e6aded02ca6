"""A Modbus slave of pymodbus whose holding registers 0 and 1 count the answers.

slave.py rtu DEVICE | slave.py tcp PORT

Registers 0 and 1 are a 32-bit number, big-endian, that rises by one with each
read; registers 2 and 3 hold the float 21.5; register 4 holds -7.
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


block = Counting(0, [0, 0, 0x41AC, 0x0000, 0x10000 - 7] + [0] * 20)
context = ModbusServerContext(slaves=ModbusSlaveContext(hr=block, zero_mode=True), single=True)
print("ready", flush=True)
if sys.argv[1] == "rtu":
    StartSerialServer(context=context, framer=ModbusRtuFramer, port=sys.argv[2], baudrate=115200, timeout=0.005)
else:
    StartTcpServer(context=context, framer=ModbusSocketFramer, address=("127.0.0.1", int(sys.argv[2])))
