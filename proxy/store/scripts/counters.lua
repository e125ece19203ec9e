-- counters: sets the counters of a shard that is rebuilding, and with the last of them its epoch.
--
-- KEYS  1 epoch   2 holds   3 drafts   then the `held` that begin at nothing   then the `spent` that are set
-- ARGV  1 name of the new epoch (empty: more counters are to come)   2 how many `held` there are
--       then for each `spent`: amount, when it expires (0: never; of a rolling one, ms from now), and of a rolling one
--       the sub-bucket (else empty)
-- Reply 1 they are set, 0 the shard has an epoch, so nothing was done.
--
-- While the epoch is missing nothing else writes here, so the steps of a large shard cannot be torn apart. Running
-- calls find their holds gone and register them again, and what they hold with them.

if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end

local helds = tonumber(ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
for key = 4, 3 + helds do
  redis.call('DEL', KEYS[key])
end
for key = 4 + helds, #KEYS do
  local at = 3 + 3 * (key - 4 - helds)
  local amount, expires, bucket = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if bucket ~= '' then
    redis.call('HSET', KEYS[key], bucket, amount)
    redis.call('HDEL', KEYS[key], 'from', 'sum')
    redis.call('PEXPIRE', KEYS[key], expires)
  else
    redis.call('SET', KEYS[key], amount)
    if expires ~= '0' then
      redis.call('PEXPIREAT', KEYS[key], expires)
    end
  end
end
if ARGV[1] ~= '' then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
