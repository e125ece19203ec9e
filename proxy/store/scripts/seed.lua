-- seed: adds an amount to what a counter has spent, once for each name.
--
-- KEYS  1 epoch   2 seeded:<name and counter>   3 spent
-- ARGV  1 amount   2 when the counter expires (0: never; of a rolling one, ms from now)   3 the sub-bucket of a rolling
--       one (else empty)   4 ms to remember the name (0: for ever)
-- Reply 1 added, 0 it was added before. Error REBUILDING without an epoch.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end

redis.call('SET', KEYS[2], ARGV[1])
if ARGV[4] ~= '0' then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if ARGV[3] ~= '' then
  redis.call('HINCRBY', KEYS[3], ARGV[3], ARGV[1])
  redis.call('HDEL', KEYS[3], 'from', 'sum')
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
else
  redis.call('INCRBY', KEYS[3], ARGV[1])
  if ARGV[2] ~= '0' then
    redis.call('PEXPIREAT', KEYS[3], ARGV[2])
  end
end
return 1
