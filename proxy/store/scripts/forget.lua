-- forget: takes back the marks of a running call, whose caller went away: a repeat of it is no duplicate, and another
-- call shall answer those that wait for it.
--
-- KEYS  1 epoch   2 drafts
-- ARGV  1 call_id
-- Reply 1 forgotten, 0 it has left no marks. Error REBUILDING without an epoch.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

-- include: remembered

local marks = redis.call('HGET', KEYS[2], ARGV[1] .. ':marks')
if not marks then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1] .. ':marks')
forget(ARGV[1], marks, true)
return 1
