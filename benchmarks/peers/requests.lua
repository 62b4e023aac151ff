-- The requests of one file, one after another, as the bytes they are; figures as one line of JSON at the end.
local file = assert(io.open(os.getenv("PEER_REQUESTS"), "rb"))
local requests = {}
while true do
  local size = file:read(8)
  if not size then break end
  requests[#requests + 1] = file:read(tonumber(size, 16))
end
file:close()

local last = 0
request = function()
  last = last % #requests + 1
  return requests[last]
end

done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'FIGURES {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p90_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
