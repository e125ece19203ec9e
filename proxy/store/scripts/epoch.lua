-- epoch: whether a shard has an epoch. An older copy of the store loses the one it has.
--
-- KEYS  1 epoch   2 records
-- ARGV  epoch (1) and stream id (2) up to which the ledger has read; both empty: nothing yet
-- Reply 1, or 0: the shard is rebuilding until counters.lua begins its epoch.
--
-- A store that holds less than the ledger has already read is an older copy (a fail-over, a restored backup): what it
-- says of holds and settled calls is out of date. An id is `ms-sequence`.

local current = redis.call('GET', KEYS[1])
if not current then
  return 0
end
if current ~= ARGV[1] then
  return 1
end

local function parts(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end

local last = '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local facts = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then
      last = facts[i + 1]
    end
  end
end

local last_ms, last_sequence = parts(last)
local read_ms, read_sequence = parts(ARGV[2])
if last_ms < read_ms or (last_ms == read_ms and last_sequence < read_sequence) then
  redis.call('DEL', KEYS[1])
  return 0
end
return 1
