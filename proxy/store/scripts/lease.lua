-- lease: takes a lease or prolongs one's own.
--
-- KEYS  1 lease
-- ARGV  1 holder   2 life in ms   3 a holder who is known to be dead, or empty
-- Reply 1 if the lease is now ours, 0 if another one holds it.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
