-- Releases the lock. ARGV: contender, claim, user's token. Returns as release() does.
return release(ARGV[1], ARGV[2], ARGV[3])
