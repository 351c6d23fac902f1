-- Ends jobs, or has them come again, and frees their places; counts the answers of what they asked.
-- A job that somebody else has started or queued meanwhile is left to them: only the own entry goes.
-- ARGV: now, worker name, JSON rows of [queue name, job id, execution id, key or "",
-- time to come again, or "" for never, or "goes on" when it has not ended and needs its place no more,
-- 1 when what the key names answered, 0 when it did not, "" when it was not asked]

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

-- Of each queue, which entries in the started registry are still there; they go.
local rows, members, there = cjson.decode(ARGV[3]), {}, {}
for _, row in ipairs(rows) do
    local name, id, execution, _, again = unpack(row)
    if again ~= 'goes on' then
        members[name] = members[name] or {}
        table.insert(members[name], id .. ':' .. execution)
    end
end
for name, list in pairs(members) do
    for number, score in ipairs(redis.call('ZMSCORE', 'rq:wip:' .. name, unpack(list))) do
        there[list[number]] = score
    end
    redis.call('ZREM', 'rq:wip:' .. name, unpack(list))
end

local gone, failed, freed = {}, {}, {}
for _, row in ipairs(rows) do
    local name, id, execution, key, again, answered = unpack(row)
    local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'execution')
    local own = job[1] == 'started' and job[2] == execution
    local member = id .. ':' .. execution
    local held = false
    -- That it goes on may be told together with its end, which then still counts.
    if again ~= 'goes on' then held, there[member] = there[member], nil end
    if key ~= '' and answered ~= '' then count(key, answered) end
    if held and own then
        if again == '' then
            gone[#gone + 1], gone[#gone + 2] = 'rq:job:' .. id, 'rq:results:' .. id
            failed[name] = failed[name] or {}
            table.insert(failed[name], id)
            finished = finished + 1
        else
            redis.call('HSET', 'rq:job:' .. id, 'status', 'scheduled', 'begun_before', 1)
            redis.call('ZADD', 'rq:scheduled:' .. name, again, id)
        end
    end
    if key ~= '' and (again == 'goes on' and own or held and (own or not job[1])) then
        freed[key] = freed[key] or {}
        table.insert(freed[key], id)
    end
end
if #gone > 0 then redis.call('DEL', unpack(gone)) end
for name, list in pairs(failed) do redis.call('ZREM', 'rq:failed:' .. name, unpack(list)) end
for key, list in pairs(freed) do
    redis.call('ZREM', allowed_of(key), unpack(list))
    promote(key)
end
redis.call('HINCRBY', 'rq:worker:' .. worker, 'successful_job_count', finished)
