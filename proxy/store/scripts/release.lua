-- release: ends the hold of a call that leaves no record, and charges nothing.
--
-- KEYS  1 epoch   2 holds   3 drafts   then for each take: held
-- ARGV  1 call_id   2 the takes as text   then for each take: amount held, `1` where the counter has no end
-- Reply 1 released, 0 there was no hold; TAKES and the takes as text: the hold names others, nothing was done.
--       Error REBUILDING without an epoch.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

local found = redis.call('HMGET', KEYS[3], ARGV[1] .. ':takes', ARGV[1] .. ':marks')
local holding, marks = found[1], found[2]
if holding and holding ~= ARGV[2] then
  return {'TAKES', holding}
end

if holding then
  for key = 4, #KEYS do
    local at = 3 + 2 * (key - 4)
    local left = redis.call('DECRBY', KEYS[key], ARGV[at])
    if left < 0 or (left == 0 and ARGV[at + 1] == '1') then
      redis.call('DEL', KEYS[key])
    end
  end
end
redis.call('HDEL', KEYS[3], ARGV[1], ARGV[1] .. ':takes', ARGV[1] .. ':marks')
if marks then
-- include: remembered
  forget(ARGV[1], marks, true)
end
return redis.call('ZREM', KEYS[2], ARGV[1])
