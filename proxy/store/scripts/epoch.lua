-- epoch: the epoch of a shard, begun anew where there is none or where the store is an older copy of itself.
--
-- KEYS  1 epoch   2 records
-- ARGV  1 name for a new epoch; empty: begin none, so that the shard is rebuilding until counters.lua begins it
--       2 epoch and 3 stream id up to which the ledger has read (both empty: nothing yet)
-- Reply the epoch that is in force now; empty where there is none.
--
-- A store that holds less than the ledger has already read is an older copy (a fail-over, a restored backup): what it
-- says of holds and settled calls is out of date. An id is `ms-sequence`.

local function begin()
  if ARGV[1] == '' then
    redis.call('DEL', KEYS[1])
  else
    redis.call('SET', KEYS[1], ARGV[1])
  end
  return ARGV[1]
end

local current = redis.call('GET', KEYS[1])
if not current then
  return begin()
end
if current ~= ARGV[2] then
  return current
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
local read_ms, read_sequence = parts(ARGV[3])
if last_ms < read_ms or (last_ms == read_ms and last_sequence < read_sequence) then
  return begin()
end
return current
