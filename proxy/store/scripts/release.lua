-- release: ends the hold of a call that leaves no record.
--
-- KEYS  1 epoch   2 holds   3 drafts
-- ARGV  1 call_id
-- Reply 1 released, 0 there was no hold. Error REBUILDING without an epoch.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

redis.call('HDEL', KEYS[3], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
