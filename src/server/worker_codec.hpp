// Between the frames of a worker and the queue's words. Checks form only; whether it is true and timely is the core's
// to say.
#pragma once

#include "grange/v1/wire.pb.h"
#include "queue/queue.hpp"
#include "store/blobs.hpp"

namespace grange::server {

namespace pb = ::grange::v1;

Fence to_fence(const pb::Fence& fence);
Fence to_fence(const pb::Held& held);
// invalid_argument: a worker id, engine or label that cannot be.
Result<core::Capacity> to_capacity(const pb::Manifest& manifest);
// A job that is pinned to a machine asks for this label: so it is the server's word, never the worker's.
inline constexpr std::string_view kWorkerLabel = "grange.worker";
void label_as(core::Capacity& capacity, const std::string& worker_id);
// Moves the bytes out of `result`. A result that breaks a limit becomes a failure that says so.
queue::ResultReport to_report(pb::TaskResult& result, const store::BlobStore& blobs);
pb::FailureClass to_wire(core::FailureClass failure);

}  // namespace grange::server
