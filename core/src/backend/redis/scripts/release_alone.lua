-- Releases a lock without waiters. ARGV: as in release.lua.
if ARGV[3] == '' and redis.call('EXISTS', KEYS[3]) == 0 and redis.pcall('GET', KEYS[1]) == ARGV[2] then
  redis.call('DEL', KEYS[1])
  return 'G'
end
