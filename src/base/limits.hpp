// Every limit has a name, and stands here. What a person may change is a setting; these are its bounds and defaults.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.hpp"

namespace grange::limits {

// jobs and tasks
inline constexpr std::uint32_t kTasksPerJob = 10'000'000;
inline constexpr std::uint32_t kQueuedTasks = 50'000'000;  // over all jobs; a submit beyond it is refused
inline constexpr std::uint32_t kLiveJobs = 200'000;
inline constexpr std::size_t kTaskBytes = 96;  // of a live task in the core
inline constexpr std::uint32_t kMaxAttempts = 100;
inline constexpr std::uint32_t kDefaultAttempts = 3;
inline constexpr std::uint32_t kDefaultCrashLimit = 5;
inline constexpr Millis kBackoffBase{1000};
inline constexpr Millis kBackoffCap{60'000};
inline constexpr Millis kBackoffLast{86'400'000};  // what a job may set as its cap
inline constexpr int kPriorityMin = -1000;
inline constexpr int kPriorityMax = 1000;
inline constexpr std::uint32_t kRequests = 4096;  // distinct interned requirements
inline constexpr std::size_t kNameBytes = 256;
inline constexpr std::size_t kLabels = 64;
inline constexpr std::size_t kArgv = 4096;
inline constexpr std::size_t kFilesPerTask = 1000;

// scheduling
inline constexpr std::size_t kAlternatives = 7;     // requests of a job beside its first
inline constexpr std::size_t kDependencies = 1024;  // of one job
inline constexpr std::size_t kGraphJobs = 10'000;   // submitted as one graph
inline constexpr std::uint32_t kNodes = 1024;       // of a gang
inline constexpr std::size_t kRetryRules = 16;
inline constexpr std::size_t kInputs = 10'000;    // results handed to one task
inline constexpr Bytes kInputsBytes = 8 * MiB;    // of these, inline
inline constexpr Bytes kInputsAtOnce = 64 * MiB;  // of the tasks handed out by one batch; the rest of them wait
inline constexpr std::size_t kUsers = 100'000;
inline constexpr std::size_t kKinds = 256;             // kinds of task that one worker's speed is kept for, the newest
inline constexpr std::size_t kAvoided = 3;             // workers that a task remembers to have failed on
inline constexpr Millis kStarving{30'000};             // then room is kept for work that needs much of a worker
inline constexpr Millis kReturnWait{500};              // before a task that a worker gave back unasked is offered again
inline constexpr std::uint32_t kQuarantineAfter = 10;  // failures in a row of tasks that others can do
inline constexpr Millis kQuarantine{60'000};           // doubles each time, up to kQuarantineLast
inline constexpr Millis kQuarantineLast{3'600'000};
// Tasks that fail without ever having been handed out (a dependency, a deadline) and get an outcome each. Of more than
// so many the first one does, and the others end as cancelled.
inline constexpr std::uint32_t kFailedRange = 10'000;
inline constexpr std::size_t kKindNames = 65'536;  // kinds told apart by the server; those beyond are one
inline constexpr std::size_t kExplainWorkers = 50;
inline constexpr std::size_t kSchedules = 10'000;
inline constexpr std::size_t kHaveRanges = 65'536;  // of what a follower says it has

// leases
inline constexpr Millis kHeartbeat{10'000};
inline constexpr Millis kLease{30'000};
inline constexpr std::uint32_t kWorkers = 10'000;
inline constexpr std::uint32_t kWindow = 4096;  // attempts that a worker may hold at once
inline constexpr std::size_t kSpecsKept = 256;  // of jobs that a worker has no task of, the most recently used

// bytes on the wire
inline constexpr Bytes kFrame = 16 * MiB;
inline constexpr Bytes kInline = 256 * KiB;  // larger arguments and results go as blobs
inline constexpr Bytes kHttpHeader = 32 * KiB;
inline constexpr Bytes kHttpBody = 64 * MiB;  // of a request that is not a blob
inline constexpr Bytes kBlob = 64 * GiB;
inline constexpr Bytes kOutboxBytes = 64 * MiB;  // unsent and unacknowledged frames of one session
inline constexpr std::size_t kOutboxFrames = 65'536;
inline constexpr int kJsonDepth = 64;
inline constexpr std::size_t kMessageBytes = 8 * KiB;  // an error message kept with a task
inline constexpr std::size_t kTracebackBytes = 64 * KiB;

// connections
inline constexpr std::size_t kConnections = 20'000;
inline constexpr Millis kHandshake{10'000};
inline constexpr Millis kIdle{60'000};                // a socket that says nothing, not even a pong
inline constexpr Millis kJsonWorkerSilence{600'000};  // of a JSON worker that runs a task: its loop may answer no ping
inline constexpr Millis kReconnectFirst{1000};
inline constexpr Millis kReconnectLast{60'000};
inline constexpr double kReconnectJitter = 0.1;
inline constexpr int kBreakerFailures = 5;  // in a row, and the circuit opens
inline constexpr Millis kBreakerOpen{10'000};
inline constexpr Millis kShutdown{10'000};
inline constexpr Millis kCloseWait{3'000};      // for the peer's half of a polite close
inline constexpr Bytes kStreamBytes = 1 * MiB;  // unsent of one streamed answer, before its writer ought to hold back
inline constexpr Bytes kGzipFrom = 1 * KiB;
inline constexpr Bytes kBodyRate = 1 * KiB;  // a second: a body that comes slower over kBodyWindow is given up
inline constexpr Millis kBodyWindow{30'000};
inline constexpr Bytes kBodiesInFlight = 512 * MiB;   // of one listener's requests, in memory at once
inline constexpr std::size_t kOpenFiles = 1'048'576;  // what the server asks for, as far as the hard limit lets it
inline constexpr Millis kAcceptPause{100};            // when there are no more descriptors
inline constexpr Millis kAcceptWarning{60'000};       // said at most so often

// logs and events
inline constexpr Bytes kLogPerTask = 64 * MiB;  // then cut, and said so
inline constexpr Bytes kLogChunk = 64 * KiB;
inline constexpr Bytes kLogQueueBytes = 64 * MiB;  // log lines that wait for the disk
inline constexpr std::size_t kLogQueueLines = 262'144;
inline constexpr std::size_t kEventsKept = 65'536;
inline constexpr std::size_t kFollowers = 10'000;

// REST
inline constexpr std::uint32_t kPage = 1000;
inline constexpr std::uint32_t kPageDefault = 100;
inline constexpr Millis kLongPoll{60'000};

// engine loop
inline constexpr Bytes kPageCache = 128 * MiB;    // arguments of tasks that are about to run
inline constexpr std::size_t kInbox = 1'000'000;  // events waiting for the loop; a full inbox slows the senders
inline constexpr std::size_t kCommitBatch = 16'384;

static_assert(kHeartbeat * 2 < kLease, "a lease outlives one lost heartbeat");
static_assert(kInline * 4 < kFrame);
static_assert(kFrame < kOutboxBytes);

}  // namespace grange::limits
