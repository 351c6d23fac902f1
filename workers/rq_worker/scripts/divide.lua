-- Divides the shards of an index among the live reconcilers: each holds its share, and no two hold the same shard.
-- Times are those of this server, in ms. A time more than a lease ahead was written before the clock was set back.
-- ARGV: index name, own id, lease in ms, number of shards, the shards, those that the caller has held so far
-- Returns the shards that the caller holds now.

local name, me, lease, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local members, owners = 'datahog:reconcilers:' .. name, 'datahog:shards:' .. name
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', members, now + lease, '+inf')) do
    redis.call('ZADD', members, now + lease, member)
end
-- If no reconciler is registered, others may be alive that could not renew their leases. They renew them within half a
-- lease; until then, each reconciler takes only shards that it has held.
local settling = members .. ':settling'
if redis.call('EXISTS', members) == 0 then redis.call('SET', settling, now + lease / 2, 'PX', lease) end
local settled = tonumber(redis.call('GET', settling) or now)
local is_settled = settled <= now or settled > now + lease
redis.call('ZADD', members, now + lease, me)

-- The rank of a reconciler's id decides which shares are one shard larger, so that the shares add up to all shards.
local ids = redis.call('ZRANGE', members, 0, -1)
table.sort(ids)
local share = math.floor(count / #ids)
for place, id in ipairs(ids) do
    if id == me and place <= count % #ids then share = share + 1 end
end

local had = {}
for i = 5 + count, #ARGV do had[ARGV[i]] = true end
local held, free = {}, {}
for i = 5, 4 + count do
    local shard = ARGV[i]
    local owner = redis.call('HGET', owners, shard)
    if owner == me then held[#held + 1] = shard
    elseif not (owner and redis.call('ZSCORE', members, owner)) and (is_settled or had[shard]) then
        free[#free + 1] = shard
    end
end
for i = #held, share + 1, -1 do
    redis.call('HDEL', owners, held[i])
    held[i] = nil
end
for i = 1, math.min(#free, share - #held) do
    redis.call('HSET', owners, free[i], me)
    held[#held + 1] = free[i]
end
return held
