-- Puts jobs, due now or later. A job that a worker holds is not touched: it runs once more after it has completed.
-- ARGV: now in seconds, now in RQ's format, timeout in seconds, 1 to put only jobs that are missing or 0 to put all,
-- JSON of {key: [concurrency, fields of `datahog:policy:<key>`]},
-- then for each job: queue name, job id, data, description, time when it is due or "" for now, key or ""
-- Returns how many jobs it put.

local now, text, timeout, only_missing = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4] == '1'
local limits, put = cjson.decode(ARGV[5]), 0

for key, limit in pairs(limits) do
    redis.call('SADD', 'rq:rl-keys', key)
    redis.call('HSET', 'rq:rl:' .. key, 'concurrency', limit[1])
    for name, value in pairs(limit[2]) do redis.call('HSET', 'datahog:policy:' .. key, name, value) end
end

-- Whether the job is where its status says.
local function is_there(id, name, status, key, turn)
    if status == 'scheduled' then return redis.call('ZSCORE', 'rq:scheduled:' .. name, id) end
    if status == 'rate_limited' then return redis.call('ZSCORE', waiting_of(key or ''), id) end
    return status == 'queued' and is_queued(id, name, turn)
end

-- Removes what is left of a job's earlier state. Only a job that is due at once keeps its permit.
local function forget_whereabouts(id, name, status, key, old_key, due)
    redis.call('HDEL', 'rq:job:' .. id, 'execution', 'again')
    if status == 'started' then redis.call('HSET', 'rq:job:' .. id, 'begun_before', 1) end
    if due == '' then redis.call('ZREM', 'rq:scheduled:' .. name, id) end
    if old_key and not key then redis.call('HDEL', 'rq:job:' .. id, 'rate_limit_key', 'rate_limit_concurrency') end
    if old_key and (key ~= old_key or due ~= '') then release(old_key, id) end
end

for i = 6, #ARGV, 6 do
    local name, id, data, description, due, key = unpack(ARGV, i, i + 5)
    local status, old_key, execution, turn = unpack(read(id, 'status', 'rate_limit_key', 'execution', 'turn'))
    local leased = status == 'started' and is_leased(id, name, execution)
    local there = not leased and is_there(id, name, status, old_key, turn)
    if leased then
        if not only_missing then redis.call('HSET', 'rq:job:' .. id, 'data', data, 'again', due == '' and now or due) end
    elseif not there or not only_missing and status == 'scheduled' then
        put = put + 1
        if key == '' then key = nil end
        redis.call('SADD', 'rq:queues', 'rq:queue:' .. name)
        redis.call('HSET', 'rq:job:' .. id, 'created_at', text, 'enqueued_at', text, 'data', data, 'origin', name,
            'description', description, 'timeout', timeout, 'result_ttl', 0, 'status', 'scheduled')
        if key then
            redis.call('HSET', 'rq:job:' .. id, 'rate_limit_key', key, 'rate_limit_concurrency', limits[key][1])
        end
        if status then forget_whereabouts(id, name, status, key, old_key, due) end
        if due == '' then
            admit(id, name, key, now + i / 1e6)
        else
            redis.call('ZADD', 'rq:scheduled:' .. name, due, id)
        end
    elseif not only_missing then
        -- The job is about to run, and gets the newest data.
        redis.call('HSET', 'rq:job:' .. id, 'data', data)
    end
end
return put
