-- Completes jobs, or schedules them again, and releases their permits; counts the responses for the circuit breakers.
-- A job that another worker has claimed, or that is queued again, stays as it is: only this worker's entry is removed.
-- ARGV: now in seconds, worker name, JSON rows of [queue name, job id, execution id, key or "",
-- time to run again, or "" for never, or "goes on" when the job still runs and only releases its permit,
-- 1 when the provider of the key responded, 0 when it did not, "" when it was not called]

local now, worker, finished = tonumber(ARGV[1]), ARGV[2], 0

local function count(key, answered)
    local state = 'datahog:breaker:' .. key
    if answered == 1 then
        if redis.call('DEL', state) == 1 then redis.call('ZADD', 'datahog:held', 'XX', now, key) end
        return
    end
    local failures = redis.call('HINCRBY', state, 'failures', 1)
    local policy = redis.call('HMGET', 'datahog:policy:' .. key, 'failures', 'openSeconds')
    if policy[1] and failures >= tonumber(policy[1]) then
        local open = now + tonumber(policy[2])
        redis.call('HSET', state, 'openUntil', open)
        redis.call('HDEL', state, 'probeUntil')
        redis.call('ZADD', 'datahog:held', open, key)
    end
    redis.call('EXPIRE', state, 172800)
end

-- Ends the leases, and remembers those that were still there.
local rows, members, leased = cjson.decode(ARGV[3]), {}, {}
for _, row in ipairs(rows) do
    local name, id, execution, _, again = unpack(row)
    if again ~= 'goes on' then
        members[name] = members[name] or {}
        table.insert(members[name], id .. ':' .. execution)
    end
end
for name, list in pairs(members) do
    for number, score in ipairs(redis.call('ZMSCORE', 'rq:wip:' .. name, unpack(list))) do
        leased[list[number]] = score
    end
    redis.call('ZREM', 'rq:wip:' .. name, unpack(list))
end

local gone, failed, freed, ended = {}, {}, {}, {}

local function free(key, id)
    freed[key] = freed[key] or {}
    table.insert(freed[key], id)
end

-- Completes a job of this worker, or schedules it again: as its worker says, or because it was put while it ran.
local function complete(name, id, again)
    if again == '' then
        gone[#gone + 1], gone[#gone + 2] = 'rq:job:' .. id, 'rq:results:' .. id
        failed[name] = failed[name] or {}
        table.insert(failed[name], id)
        finished = finished + 1
        return
    end
    redis.call('HSET', 'rq:job:' .. id, 'status', 'scheduled', 'begun_before', 1)
    redis.call('HDEL', 'rq:job:' .. id, 'execution', 'again')
    redis.call('ZADD', 'rq:scheduled:' .. name, again, id)
end

for _, row in ipairs(rows) do
    local name, id, execution, key, again, answered = unpack(row)
    local status, holder, put_again = unpack(redis.call('HMGET', 'rq:job:' .. id, 'status', 'execution', 'again'))
    local own = status == 'started' and holder == execution
    local others = not own and (status == 'started' or status == 'queued')
    local member = id .. ':' .. execution
    if key ~= '' and answered ~= '' then count(key, answered) end
    if again == 'goes on' then
        if own and key ~= '' then free(key, id) end
    elseif not ended[member] then
        ended[member] = true
        if again == '' and put_again then again = put_again end
        if own then complete(name, id, again) end
        if (own or leased[member]) and key ~= '' and not others then free(key, id) end
    end
end
if #gone > 0 then redis.call('DEL', unpack(gone)) end
for name, list in pairs(failed) do redis.call('ZREM', 'rq:failed:' .. name, unpack(list)) end
for key, list in pairs(freed) do
    redis.call('ZREM', allowed_of(key), unpack(list))
    promote(key)
end
redis.call('HINCRBY', 'rq:worker:' .. worker, 'successful_job_count', finished)
