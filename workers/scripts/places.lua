-- A provider's places: who has one, and who waits for one. Those scripts that need it begin with it.

local function waiting_of(key) return 'rq:rl:' .. key .. ':rate_limited' end
local function allowed_of(key) return 'rq:rl:' .. key .. ':allowed' end
local function free_places(key)
    return tonumber(redis.call('HGET', 'rq:rl:' .. key, 'concurrency') or 1) - redis.call('ZCARD', allowed_of(key))
end

local function queue(id, name)
    redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
    redis.call('RPUSH', 'rq:queue:' .. name, id)
end

-- Lets those that wait longest onto their queues, as many as there are places.
local function promote(key)
    if redis.call('ZSCORE', 'datahog:held', key) then return end
    while free_places(key) > 0 do
        local id, came = unpack(redis.call('ZPOPMIN', waiting_of(key)))
        if not id then return end
        local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'origin')
        if job[1] == 'rate_limited' then
            redis.call('ZADD', allowed_of(key), came, id)
            queue(id, job[2])
        end
    end
end

local function release(key, id)
    redis.call('ZREM', allowed_of(key), id)
    promote(key)
end

-- A job that is due goes onto its queue, behind those that came before it and wait for the same provider.
local function admit(id, name, key, came)
    if not key then return queue(id, name) end
    redis.call('HSET', 'rq:job:' .. id, 'status', 'rate_limited')
    redis.call('ZADD', waiting_of(key), came, id)
    promote(key)
end
