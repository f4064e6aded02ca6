-- Wireshark dissector for MCP, the Message Communication Protocol of edge-agent
-- (docs/protocol.md).
--
-- Copy this file into the folder that Help > About Wireshark > Folders calls
-- "Personal Lua Plugins", or name it on the command line:
--
--   tshark -X lua_script:scripts/wireshark/edge_mcp.lua -r capture.pcap -O edge_mcp
--
-- Frames are found by their magic on any TCP or UDP port. TLS on port 7700 is
-- looked into where Wireshark has the session's keys (SSLKEYLOGFILE). A filter to
-- begin with: edge_mcp.command == 5 && edge_mcp.device == "press-7"

local mcp = Proto("edge_mcp", "Message Communication Protocol (edge-agent)")

local HEADER, COOKIE, MAGIC = 8, 8, 0x4D43
local HELLO_EXPECTED = 9
local MAX_PAYLOAD = { [1] = 1024, [2] = 16777216 }

local commands = {
  [1] = "HEARTBEAT", [2] = "HEARTBEAT_ACK", [3] = "HELLO", [4] = "WELCOME", [5] = "PUBLISH",
  [6] = "ACK", [7] = "REQUEST", [8] = "RESPONSE", [9] = "CLOSE", [10] = "ERROR",
}
local codes = {
  [0] = "ok", [1] = "bad frame", [2] = "unknown version", [3] = "unknown command", [4] = "bad payload",
  [5] = "not allowed", [6] = "too large", [7] = "busy", [8] = "window exceeded", [9] = "hello expected",
  [10] = "hello time-out", [11] = "heartbeat missed", [12] = "unexpected command", [13] = "going away",
  [14] = "replaced", [15] = "unknown method", [16] = "internal error", [17] = "epoch spent",
  [18] = "unauthorized", [19] = "token expired", [20] = "rate exceeded",
}

local f = {
  cookie = ProtoField.bytes("edge_mcp.cookie", "Cookie"),
  magic = ProtoField.uint16("edge_mcp.magic", "Magic", base.HEX),
  version = ProtoField.uint8("edge_mcp.version", "Version"),
  command = ProtoField.uint8("edge_mcp.command", "Command", base.DEC, commands),
  length = ProtoField.uint32("edge_mcp.length", "Payload length"),
  checksum = ProtoField.bytes("edge_mcp.checksum", "Checksum"),
  good = ProtoField.bool("edge_mcp.checksum.good", "Checksum is right"),
  unknown = ProtoField.bytes("edge_mcp.unknown", "Unknown field"),

  sender = ProtoField.string("edge_mcp.sender", "Sender"),
  epoch = ProtoField.uint64("edge_mcp.epoch", "Epoch", base.HEX),
  token = ProtoField.none("edge_mcp.token", "Token (not shown)"),
  software = ProtoField.string("edge_mcp.software", "Software"),
  versions = ProtoField.string("edge_mcp.versions", "Versions"),
  heartbeat = ProtoField.uint32("edge_mcp.heartbeat_ms", "Heartbeat, ms"),
  channel = ProtoField.string("edge_mcp.channel", "Channel"),
  deduplicates = ProtoField.bool("edge_mcp.deduplicates", "Deduplicates requests"),
  max_payload = ProtoField.uint32("edge_mcp.max_payload", "Largest payload"),
  window_records = ProtoField.uint32("edge_mcp.window_records", "Window, records"),
  window_bytes = ProtoField.uint32("edge_mcp.window_bytes", "Window, bytes"),
  position = ProtoField.none("edge_mcp.position", "Position"),
  number = ProtoField.uint64("edge_mcp.number", "Safe up to"),
  resend_from = ProtoField.uint64("edge_mcp.resend_from", "Send again from"),
  resend_to = ProtoField.uint64("edge_mcp.resend_to", "Send again up to"),

  previous = ProtoField.uint64("edge_mcp.previous", "Number before the first"),
  numbers = ProtoField.string("edge_mcp.numbers", "Numbers"),
  repeated = ProtoField.bool("edge_mcp.repeated", "Numbers that came before"),
  best_effort = ProtoField.bool("edge_mcp.best_effort", "Best effort"),
  record = ProtoField.none("edge_mcp.record", "Record"),
  device = ProtoField.string("edge_mcp.device", "Device"),
  stream = ProtoField.string("edge_mcp.stream", "Stream"),
  time = ProtoField.absolute_time("edge_mcp.time", "Time", base.UTC),
  clock = ProtoField.uint32("edge_mcp.clock", "Clock", base.DEC, { [0] = "unsynchronised", [1] = "synchronised", [2] = "corrected" }),
  quality = ProtoField.uint32("edge_mcp.quality", "Quality", base.DEC, { [0] = "good", [1] = "partial", [2] = "bad" }),
  payload = ProtoField.bytes("edge_mcp.payload", "Payload"),
  content_type = ProtoField.string("edge_mcp.content_type", "Content type"),
  gap = ProtoField.bytes("edge_mcp.gap", "Gap"),
  agent = ProtoField.string("edge_mcp.agent", "Agent"),
  seq = ProtoField.uint64("edge_mcp.seq", "Sequence number"),
  part = ProtoField.uint32("edge_mcp.part", "Part"),
  boot = ProtoField.uint64("edge_mcp.boot", "Boot", base.HEX),
  uptime = ProtoField.uint64("edge_mcp.uptime_ns", "Since the boot, ns"),
  recorded = ProtoField.absolute_time("edge_mcp.time_recorded", "Time, as recorded", base.UTC),

  point = ProtoField.none("edge_mcp.point", "Point"),
  name = ProtoField.string("edge_mcp.point.name", "Name"),
  double = ProtoField.double("edge_mcp.point.float64", "Value"),
  float = ProtoField.float("edge_mcp.point.float32", "Value"),
  int = ProtoField.int64("edge_mcp.point.int", "Value"),
  uint = ProtoField.uint64("edge_mcp.point.uint", "Value"),
  bool = ProtoField.bool("edge_mcp.point.bool", "Value"),
  text = ProtoField.string("edge_mcp.point.text", "Value"),
  unit = ProtoField.string("edge_mcp.point.unit", "Unit"),
  bad = ProtoField.string("edge_mcp.point.bad", "Bad"),

  id = ProtoField.uint64("edge_mcp.id", "Id", base.HEX),
  method = ProtoField.string("edge_mcp.method", "Method"),
  time_left = ProtoField.uint64("edge_mcp.time_left_ms", "Time left, ms"),
  code = ProtoField.uint32("edge_mcp.code", "Code", base.DEC, codes),
  reason = ProtoField.string("edge_mcp.reason", "Reason"),
}
for _, field in pairs(f) do table.insert(mcp.fields, field) end

local wrong_checksum = ProtoExpert.new("edge_mcp.checksum.wrong", "Wrong checksum", expert.group.CHECKSUM, expert.severity.ERROR)
local malformed = ProtoExpert.new("edge_mcp.malformed", "Not a protobuf payload", expert.group.MALFORMED, expert.severity.ERROR)
local refused = ProtoExpert.new("edge_mcp.refused", "The peer refuses", expert.group.RESPONSE_CODE, expert.severity.WARN)
mcp.experts = { wrong_checksum, malformed, refused }

-- Checksums --------------------------------------------------------------------

local band, bxor, rshift, lshift = bit32.band, bit32.bxor, bit32.rshift, bit32.lshift

local crc32c_table = {}
for n = 0, 255 do
  local crc = n
  for _ = 1, 8 do
    crc = band(crc, 1) == 1 and bxor(rshift(crc, 1), 0x82F63B78) or rshift(crc, 1)
  end
  crc32c_table[n] = crc
end

local function crc32c(bytes)
  local crc = 0xFFFFFFFF
  for i = 0, bytes:len() - 1 do
    crc = bxor(crc32c_table[band(bxor(crc, bytes:get_index(i)), 0xFF)], rshift(crc, 8))
  end
  return bxor(crc, 0xFFFFFFFF)
end

local function crc8(bytes)
  local crc = 0
  for i = 0, bytes:len() - 1 do
    crc = bxor(crc, bytes:get_index(i))
    for _ = 1, 8 do
      crc = band(crc, 0x80) ~= 0 and band(bxor(lshift(crc, 1), 0x07), 0xFF) or band(lshift(crc, 1), 0xFF)
    end
  end
  return crc
end

-- Protobuf -----------------------------------------------------------------------

-- read_varint returns the value as UInt64 and where it ends, or nothing.
local function read_varint(buf, at)
  local value, factor = UInt64(0), UInt64(1)
  for i = at, math.min(at + 9, buf:len() - 1) do
    local byte = buf(i, 1):uint()
    value = value + factor * UInt64(band(byte, 0x7F))
    if byte < 0x80 then return value, i + 1 end
    factor = factor * UInt64(128)
  end
end

-- each_field calls visit(number, wire type, value, range) for every field: value is
-- a UInt64 for a varint. It returns false where the message is malformed.
local function each_field(buf, visit)
  local at = 0
  while at < buf:len() do
    local key, start = read_varint(buf, at)
    if not key then return false end
    key = key:tonumber()
    local number, wire, stop, value = rshift(key, 3), band(key, 7), nil, nil
    if wire == 0 then
      value, stop = read_varint(buf, start)
    elseif wire == 1 then
      stop = start + 8
    elseif wire == 5 then
      stop = start + 4
    elseif wire == 2 then
      local size
      size, start = read_varint(buf, start)
      stop = size and start + size:tonumber()
    end
    if not stop or stop > buf:len() then return false end
    visit(number, wire, value, stop > start and buf(start, stop - start) or nil)
    at = stop
  end
  return true
end

-- read_packed returns the varints of a packed field.
local function read_packed(range)
  local list, buf, at, value = {}, range:tvb(), 0, nil
  while at and at < buf:len() do
    value, at = read_varint(buf, at)
    table.insert(list, value)
  end
  return list
end

local function join(list, most)
  local words = {}
  for i = 1, math.min(#list, most) do words[i] = tostring(list[i]) end
  if #list > most then table.insert(words, "…") end
  return table.concat(words, ", ")
end

-- The wire type that each kind of field has; a field with another one is unknown.
local wires = {
  number = 0, wide = 0, truth = 0, zigzag = 0, little = 1, nanoseconds = 1, little4 = 5,
  text = 2, bytes = 2, hidden = 2, list = 2,
}

-- What adds a field to the tree, by its kind.
local add = {}
function add.text(tree, field, _, range) return tree:add(field, range, range:string(ENC_UTF_8)) end
function add.list(tree, field, _, range) return tree:add(field, range, join(read_packed(range), 64)) end
function add.bytes(tree, field, _, range) return tree:add(field, range) end
function add.number(tree, field, value, range) return tree:add(field, range, value:lower()) end
function add.wide(tree, field, value, range) return tree:add(field, range, value) end
function add.truth(tree, field, value, range) return tree:add(field, range, value ~= UInt64(0)) end
function add.little(tree, field, _, range) return tree:add_le(field, range) end
add.little4 = add.little
function add.hidden(tree, field, _, range) return tree:add(field, range) end
function add.nanoseconds(tree, field, _, range)
  local ns = range:le_int64()
  local seconds = (ns / Int64(1000000000)):tonumber()
  return tree:add(field, range, NSTime(seconds, (ns % Int64(1000000000)):tonumber()))
end
function add.zigzag(tree, field, value, range)
  local half = Int64(value:rshift(1):lower(), value:rshift(1):higher())
  if value:band(1) == UInt64(1) then half = -half - Int64(1) end
  return tree:add(field, range, half)
end

-- The messages of mcp.proto and record.proto: {field number: {kind, field}}.
local message = {}
message.position = {
  [1] = { "text", f.channel }, [2] = { "wide", f.number }, [3] = { "wide", f.resend_from }, [4] = { "wide", f.resend_to },
}
message.hello = {
  [1] = { "text", f.sender }, [2] = { "little", f.epoch }, [3] = { "hidden", f.token }, [4] = { "text", f.software },
  [5] = { "list", f.versions }, [6] = { "number", f.heartbeat }, [7] = { "text", f.channel }, [8] = { "truth", f.deduplicates },
  [9] = { "number", f.max_payload }, [10] = { "number", f.window_records }, [11] = { "number", f.window_bytes },
  [16] = { message.position, f.position },
}
message.point = {
  [1] = { "text", f.name }, [2] = { "little", f.double }, [3] = { "little4", f.float }, [4] = { "zigzag", f.int },
  [5] = { "wide", f.uint }, [6] = { "truth", f.bool }, [7] = { "text", f.text }, [8] = { "text", f.unit }, [9] = { "text", f.bad },
}
message.record = {
  [1] = { "text", f.device }, [2] = { "text", f.stream }, [3] = { "nanoseconds", f.time }, [4] = { "number", f.clock },
  [5] = { "number", f.quality }, [6] = { message.point, f.point }, [7] = { "bytes", f.payload }, [8] = { "text", f.content_type },
  [9] = { "bytes", f.gap }, [10] = { "text", f.agent }, [11] = { "little", f.epoch }, [12] = { "wide", f.seq }, [13] = { "number", f.part },
  [14] = { "little", f.boot }, [15] = { "wide", f.uptime }, [16] = { "nanoseconds", f.recorded },
}
message.publish = {
  [1] = { "text", f.channel }, [2] = { "wide", f.previous }, [3] = { "list", f.numbers }, [4] = { message.record, f.record },
  [5] = { "truth", f.best_effort },
}
message.ack = { [1] = { message.position, f.position } }
message.request = {
  [1] = { "wide", f.id }, [2] = { "text", f.method }, [3] = { "text", f.device }, [4] = { "bytes", f.payload }, [5] = { "text", f.content_type },
  [6] = { "wide", f.time_left },
}
message.response = {
  [1] = { "wide", f.id }, [2] = { "number", f.code }, [3] = { "text", f.reason }, [4] = { "bytes", f.payload }, [5] = { "text", f.content_type },
}
message.ending = { [1] = { "number", f.code }, [2] = { "text", f.reason } }

local payloads = {
  [3] = message.hello, [4] = message.hello, [5] = message.publish, [6] = message.ack,
  [7] = message.request, [8] = message.response, [9] = message.ending, [10] = message.ending,
}

local function dissect_message(buf, description, tree, note)
  local good = each_field(buf, function(number, wire, value, range)
    local kind, field = table.unpack(description[number] or {})
    if type(kind) == "table" and wire == 2 then
      local item = tree:add(field, range or buf(0, 0))
      if range then dissect_message(range:tvb(), kind, item) end
    elseif range and wires[kind] == wire then
      local item = add[kind](tree, field, value, range)
      if note then note(number, value, item) end
    elseif range then
      tree:add(f.unknown, range)
    end
  end)
  if not good then tree:add_proto_expert_info(malformed) end
end

-- read_message returns {field number: value}: a string for text, a list for what is
-- packed, a list of ranges for messages, which may be repeated.
local function read_message(buf, description)
  local values = {}
  each_field(buf, function(number, wire, value, range)
    local kind = (description[number] or {})[1]
    if type(kind) == "table" and wire == 2 then
      values[number] = values[number] or {}
      table.insert(values[number], range or false)
    elseif range and wires[kind] == wire then
      values[number] = kind == "text" and range:string(ENC_UTF_8) or kind == "list" and read_packed(range)
        or kind == "number" and value:lower() or value or range
    end
  end)
  return values
end

-- The list of packets ----------------------------------------------------------------

-- Packets are dissected in order once, and then in any order: what was repeated is
-- found out the first time.
local seen = {} -- by direction: {epoch, {channel and number: true}}
local repeats = {} -- by packet, channel and first number

function mcp.init() seen, repeats = {}, {} end

local function direction(pinfo)
  local key = tostring(pinfo.src) .. " " .. pinfo.src_port .. " " .. tostring(pinfo.dst) .. " " .. pinfo.dst_port
  seen[key] = seen[key] or { epoch = "", numbers = {} }
  return seen[key]
end

local function is_repeated(pinfo, channel, numbers)
  local key = pinfo.number .. " " .. channel .. " " .. tostring(numbers[1])
  if not pinfo.visited then
    local before = direction(pinfo).numbers
    for _, number in ipairs(numbers) do
      local place = channel .. " " .. tostring(number)
      repeats[key] = repeats[key] or before[place]
      before[place] = true
    end
  end
  return repeats[key]
end

-- What is said of a frame, by command.
local describe = {}

describe[3] = function(m, pinfo)
  local from, epoch = direction(pinfo), tostring(m[2] or "")
  if not pinfo.visited and from.epoch ~= epoch then from.epoch, from.numbers = epoch, {} end
  return m[1]
end
describe[4] = describe[3]

describe[5] = function(m, pinfo, tree)
  local channel, numbers = m[1] or "", m[3]
  if not numbers then
    local number = m[2] or UInt64(0)
    numbers = {}
    for i = 1, #(m[4] or {}) do
      number = number + UInt64(1)
      numbers[i] = number
    end
  end
  local words = channel
  if #numbers > 0 then words = words .. " " .. tostring(numbers[1]) end
  if #numbers > 1 then words = words .. "–" .. tostring(numbers[#numbers]) end
  if m[5] and m[5] ~= UInt64(0) then return words .. " best effort" end
  if #numbers > 0 and is_repeated(pinfo, channel, numbers) then
    tree:add(f.repeated, true):set_generated()
    words = words .. " [repeated]"
  end
  return words
end

describe[6] = function(m)
  local words, before, holes = {}, nil, 0
  for _, range in ipairs(m[1] or {}) do
    local p = range and read_message(range:tvb(), message.position) or {}
    local channel = p[1] or ""
    if channel ~= before then
      table.insert(words, channel .. " ≤ " .. tostring(p[2] or 0))
      before, holes = channel, 0
    end
    if p[3] and p[3] ~= UInt64(0) then
      holes = holes + 1
      local to = p[4] and p[4] ~= UInt64(0) and tostring(p[4]) or ""
      if holes <= 3 then table.insert(words, (holes == 1 and "missing " or "") .. tostring(p[3]) .. "–" .. to) end
      if holes == 4 then table.insert(words, "…") end
    end
  end
  return table.concat(words, ", ")
end

describe[7] = function(m) return m[2] end

local function ending(code, reason)
  code = code or 0
  return tostring(codes[code] or code) .. (reason and ": " .. reason or "")
end
describe[8] = function(m) return ending(m[2], m[3]) end
describe[9] = function(m) return ending(m[1], m[2]) end
describe[10] = describe[9]

-- Frames ---------------------------------------------------------------------------

-- frame_size returns how many bytes the frame at the front takes; 0 where these
-- bytes are none, and nothing while its header isn't whole.
local function frame_size(buf)
  if buf:len() < HEADER then return nil end
  local version = buf(2, 1):uint()
  local most = MAX_PAYLOAD[version]
  local length = buf(4, 4):uint()
  if buf(0, 2):uint() ~= MAGIC or not most or length > most or not commands[buf(3, 1):uint()] then return 0 end
  return HEADER + length + (version == 1 and 1 or 4)
end

local function dissect_frame(buf, pinfo, root, told, in_datagram)
  local version, command, length = buf(2, 1):uint(), buf(3, 1):uint(), buf(4, 4):uint()
  local tree = root:add(mcp, buf(), "MCP " .. commands[command])
  tree:add(f.magic, buf(0, 2))
  tree:add(f.version, buf(2, 1))
  tree:add(f.command, buf(3, 1))
  tree:add(f.length, buf(4, 4))
  local sum = buf(HEADER + length, version == 1 and 1 or 4)
  local bytes = buf(0, HEADER + length):bytes()
  local good = (version == 1 and crc8(bytes) or crc32c(bytes)) == sum:uint()
  local words = commands[command]
  if length > 0 and payloads[command] then
    local payload = buf(HEADER, length):tvb()
    dissect_message(payload, payloads[command], tree, function(number, value, item)
      if command == 10 and number == 1 or command == 8 and number == 2 then
        local code = value:lower()
        local challenge = in_datagram and command == 10 and code == HELLO_EXPECTED
        if challenge then words = "challenge" end
        if code ~= 0 and not challenge then item:add_proto_expert_info(refused) end
      end
    end)
    local said = good and words ~= "challenge" and describe[command](read_message(payload, payloads[command]), pinfo, tree)
    if said then words = words .. " " .. said end
  end
  tree:add(f.checksum, sum)
  tree:add(f.good, sum, good):set_generated()
  if not good then
    tree:add_proto_expert_info(wrong_checksum)
    words = words .. " [wrong checksum]"
  end
  tree:set_text("MCP " .. words)
  table.insert(told, words)
end

local function tell(pinfo, told)
  pinfo.cols.protocol = "MCP"
  if #told > 8 then
    told[9] = "and " .. (#told - 8) .. " more"
    for i = #told, 10, -1 do told[i] = nil end
  end
  pinfo.cols.info = #told > 0 and table.concat(told, "; ") or "damaged"
end

-- On a stream: frames back to back, over as many segments as they take.
local function dissect_stream(buf, pinfo, root)
  local at, told = 0, {}
  while at < buf:len() do
    local size = frame_size(buf(at):tvb())
    if size == 0 then break end
    if not size or at + size > buf:len() then
      pinfo.desegment_offset = at
      pinfo.desegment_len = size and at + size - buf:len() or DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    dissect_frame(buf(at, size):tvb(), pinfo, root, told)
    at = at + size
  end
  if #told > 0 then tell(pinfo, told) end
  return at > 0 and buf:len() or pinfo.desegment_len > 0 and buf:len() or 0
end

-- In a datagram: a cookie, then whole frames.
local function dissect_datagram(buf, pinfo, root)
  if buf:len() < COOKIE then return 0 end
  local tree = root:add(mcp, buf(0, COOKIE), "MCP session cookie")
  tree:add(f.cookie, buf(0, COOKIE))
  local at, told = COOKIE, {}
  while at < buf:len() do
    local size = frame_size(buf(at):tvb())
    if not size or size == 0 or at + size > buf:len() then break end
    dissect_frame(buf(at, size):tvb(), pinfo, root, told, true)
    at = at + size
  end
  tell(pinfo, told)
  return buf:len()
end

function mcp.dissector(buf, pinfo, root)
  if pinfo.port_type == 3 then return dissect_datagram(buf, pinfo, root) end -- 3: UDP
  return dissect_stream(buf, pinfo, root)
end

mcp:register_heuristic("tcp", function(buf, pinfo, root)
  local size = frame_size(buf)
  if not size or size == 0 then return false end
  pinfo.conversation = mcp
  dissect_stream(buf, pinfo, root)
  return true
end)

mcp:register_heuristic("udp", function(buf, pinfo, root)
  if buf:len() < COOKIE + HEADER then return false end
  local size = frame_size(buf(COOKIE):tvb())
  if not size or size == 0 or COOKIE + size > buf:len() then return false end
  dissect_datagram(buf, pinfo, root)
  return true
end)

DissectorTable.get("tls.port"):add(7700, mcp)
