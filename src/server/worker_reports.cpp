// One worker: what it says.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>

#include "server/gateway/gateway.hpp"
#include "server/overview/overview.hpp"
#include "server/runs/run_book.hpp"
#include "server/text.hpp"
#include "server/worker_sessions.hpp"

namespace grange::server {
namespace {

// Numbers that make no sense count as not measured.
WorkerLoad load_of(const pb::Heartbeat& beat) {
  WorkerLoad out;
  const auto sane = [](bool has, double value, double most) {
    return has && std::isfinite(value) && value >= 0 && value <= most ? std::optional(value) : std::nullopt;
  };
  if (beat.has_network_in_bytes_per_s()) out.network_in = beat.network_in_bytes_per_s();
  if (beat.has_network_out_bytes_per_s()) out.network_out = beat.network_out_bytes_per_s();
  if (beat.has_disk_read_bytes_per_s()) out.disk_read = beat.disk_read_bytes_per_s();
  if (beat.has_disk_write_bytes_per_s()) out.disk_write = beat.disk_write_bytes_per_s();
  out.temperature_c = sane(beat.has_temperature_c(), beat.temperature_c(), 200);
  for (const pb::GpuLoad& gpu : beat.gpus()) {
    if (out.gpus.size() == 64) break;
    GpuLook look;
    look.percent = sane(gpu.has_percent(), gpu.percent(), 100);
    look.temperature_c = sane(gpu.has_temperature_c(), gpu.temperature_c(), 200);
    if (gpu.has_memory_used_bytes()) look.memory_used = gpu.memory_used_bytes();
    out.gpus.push_back(look);
  }
  return out;
}

std::vector<ServiceLook> services_of(const pb::Heartbeat& beat) {
  std::vector<ServiceLook> out;
  for (const pb::ServiceLoad& load : beat.services()) {
    if (out.size() == 64 || load.name().size() > 256) break;
    ServiceLook& look = out.emplace_back(ServiceLook{load.name(), {}, {}});
    if (load.has_cpu_percent() && std::isfinite(load.cpu_percent()) && load.cpu_percent() >= 0)
      look.cpu_percent = load.cpu_percent();
    if (load.has_memory_bytes()) look.memory = load.memory_bytes();
  }
  return out;
}

}  // namespace

void WorkerSession::message(std::string bytes, bool binary) {
  alive();
  pb::Frame& frame = owner_.scratch();
  auto verdict = read_frame(session_, bytes, binary, frame);
  if (!verdict) return refuse(verdict.error(), false);
  if (*verdict == wire::Session::Verdict::repeat) return;
  if (*verdict == wire::Session::Verdict::gap) {
    const auto self = shared_from_this();
    socket_->close(close_code::protocol, std::string(kGapReason));
    return closed({ErrorClass::invalid_argument, std::string(kGapReason)});
  }
  switch (frame.body_case()) {
    case pb::Frame::kReport:
      if (auto may = authorize_message(frame_rules(), socket_->principal(), "report", {"worker", worker_id_}); !may)
        return refuse(may.error(), true);
      return report(*frame.mutable_report());
    case pb::Frame::kHeartbeat:
      return heartbeat(frame.heartbeat());
    case pb::Frame::kRelay:
      if (auto may = authorize_message(frame_rules(), socket_->principal(), "relay", {"worker", worker_id_}); !may)
        return refuse(may.error(), true);
      if (offered_) s_.gateway->heard(number_, *frame.mutable_relay());
      return;
    case pb::Frame::kOnlyAck:
      return;
    case pb::Frame::kGoodbye: {
      note("goodbye", frame.goodbye().reason());
      const auto self = shared_from_this();
      if (number_.value != 0) s_.queue->gone(number_, queue_session_, true);
      told_queue_ = true;
      return retire(close_code::normal, "goodbye");
    }
    case pb::Frame::kBlobRefused:
      note("refused blob " + for_log(frame.blob_refused().sha256(), 64), frame.blob_refused().reason());
      return;
    case pb::Frame::kError:
      note("says", frame.error().message());
      return;
    default:
      return refuse({ErrorClass::invalid_argument, "A worker does not send this kind of frame."}, false);
  }
}

// Its own words, in our log: cut, escaped, and not too many of them.
void WorkerSession::note(std::string_view what, std::string_view words) {
  if (!log_.take(s_.clock.now().mono)) return;
  const std::uint64_t left_out = log_.left_out();
  spdlog::info("worker {}: {}{}{}{}", for_log(worker_id_), what, words.empty() ? "" : ": ", for_log(words),
               left_out == 0 ? "" : fmt::format(" ({} lines before this one were left out)", left_out));
}

void WorkerSession::report(pb::WorkerReport& in) {
  if (number_.value == 0) return refuse({ErrorClass::invalid_argument, "A report before the Welcome."}, false);
  if (in.draining()) drains_itself();  // before what it returns, which would come straight back
  if (in.logs_size() > 0) logs(in);
  for (const pb::Progress& p : in.progress()) {
    const auto it = held_.find({p.task()});
    if (it == held_.end() || it->second.attempt != p.attempt() || it->second.epoch != p.epoch()) continue;
    output_.progress({{p.task()}, p.attempt(), p.epoch()}, number_, p.done(), p.total(), cut_utf8(p.text(), 1024));
  }
  queue::ReportCall call;
  call.worker = number_;
  call.started.reserve(static_cast<std::size_t>(in.started_size()));
  for (const pb::Fence& fence : in.started()) {
    call.started.push_back(to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it == held_.end() || it->second.attempt != fence.attempt()) continue;
    if (!std::exchange(it->second.started, true)) {
      output_.started(call.started.back(), number_);
      s_.runs->began(call.started.back());
    }
  }
  live_events(in);
  call.results.reserve(static_cast<std::size_t>(in.results_size()));
  for (pb::TaskResult& result : *in.mutable_results()) call.results.push_back(to_report(result, *s_.blobs));
  for (const pb::Fence& fence : in.returned()) {
    call.returned.push_back(to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it != held_.end() && it->second.attempt == fence.attempt()) held_.erase(it);
    forget_spec(TaskId{fence.task()}.job());  // it may be for want of it
  }
  for (const pb::Fence& fence : in.paused()) call.paused.push_back(to_fence(fence));
  for (const pb::Fence& fence : in.resumed()) call.resumed.push_back(to_fence(fence));
  for (const pb::Fence& fence : in.preempted()) {
    call.preempted.push_back(to_fence(fence));
    const auto it = held_.find({fence.task()});
    if (it != held_.end() && it->second.attempt == fence.attempt()) held_.erase(it);
  }
  for (pb::Checkpoint& checkpoint : *in.mutable_checkpoints()) {
    const Fence fence{{checkpoint.task()}, checkpoint.attempt(), checkpoint.epoch()};
    if (checkpoint.data().size() > limits::kInline ||
        (!checkpoint.data_sha256().empty() &&
         (!store::is_sha256(checkpoint.data_sha256()) || !s_.blobs->size(checkpoint.data_sha256())))) {
      refuse({ErrorClass::too_large,
              "A checkpoint was refused: above the inline limit it must be a blob that was uploaded before."},
             false);
      continue;
    }
    call.checkpoints.push_back(
        {fence, {.data = std::move(*checkpoint.mutable_data()), .data_sha256 = checkpoint.data_sha256()}});
  }
  if (in.window() != 0) {
    call.window = std::min(in.window(), limits::kWindow);
    figures_.window = call.window;
  }
  if (in.has_manifest()) {
    if (offered_at_ && s_.clock.now().mono - *offered_at_ < kBetweenManifests) {
      next_manifest_ = std::move(*in.mutable_manifest());
    } else {
      take_manifest(in.manifest(), call);
    }
  }
  if (call.offer || !call.started.empty() || !call.results.empty() || !call.returned.empty() || !call.paused.empty() ||
      !call.resumed.empty() || !call.preempted.empty() || !call.checkpoints.empty() || call.window != 0) {
    s_.queue->report(std::move(call));
  }
}

// The disk, the queue and the gateway all hear of it: so at most one a second, and the newest counts.
void WorkerSession::take_manifest(const pb::Manifest& manifest, queue::ReportCall& call) {
  next_manifest_.reset();
  offered_at_ = s_.clock.now().mono;
  if (!offers(manifest)) return;
  call.offer = {.body = {.id = worker_id_, .name = name_, .manifest = manifest_}, .capacity = capacity_};
  tell_gateway();
}

// To those who follow its tasks, and to the race that it is part of.
void WorkerSession::live_events(const pb::WorkerReport& in) {
  const Instant now = s_.clock.now().mono;
  for (const pb::EngineEvent& event : in.events()) {
    const auto it = held_.find({event.task()});
    if (it == held_.end() || it->second.attempt != event.attempt() || it->second.epoch != event.epoch()) continue;
    if (!it->second.live.take(event.data_json().size(), now)) continue;
    auto data = live_event(event.type(), event.data_json());
    if (!data) continue;
    const Fence fence{{event.task()}, event.attempt(), event.epoch()};
    if (!s_.runs->said(fence, event.type(), *data)) output_.event(fence, number_, event.type(), event.time_us(), *data);
  }
}

void WorkerSession::drains_itself() {
  draining_ = true;
  if (offered_) s_.gateway->drains(number_);
  s_.queue->drain(number_);
}

void WorkerSession::logs(pb::WorkerReport& in) {
  const WallMs now = s_.clock.now().wall;
  for (pb::LogChunk& chunk : *in.mutable_logs()) {
    const auto it = held_.find({chunk.task()});
    if (it == held_.end() || it->second.attempt != chunk.attempt() || it->second.epoch != chunk.epoch())
      continue;  // not its task, or no more
    if (chunk.data().empty() || it->second.logged > limits::kLogPerTask) continue;
    std::string& data = *chunk.mutable_data();
    it->second.logged += data.size();
    store::LogLine line{.task = {chunk.task()},
                        .attempt = chunk.attempt(),
                        .stream = static_cast<std::uint8_t>(chunk.stream() & 3),
                        .at = chunk.time_ms() == 0 ? now : WallMs{static_cast<std::int64_t>(chunk.time_ms())},
                        .data = {}};
    // Pieces are small, so that a page of them is.
    while (data.size() > limits::kLogChunk) {
      std::string piece = cut_utf8(data.substr(0, limits::kLogChunk + 4), limits::kLogChunk);
      if (piece.empty()) piece = data.substr(0, limits::kLogChunk);  // no text: cut anywhere
      data.erase(0, piece.size());
      store::LogLine part = line;
      part.data = std::move(piece);
      output_.log(std::move(part));
    }
    line.data = std::move(data);
    const bool cut = it->second.logged > limits::kLogPerTask;
    const store::LogLine note{
        .task = line.task,
        .attempt = line.attempt,
        .stream = 3,
        .at = line.at,
        .data = fmt::format("The output was cut here: a task may write {} MiB.\n", limits::kLogPerTask / MiB)};
    output_.log(std::move(line));
    if (cut) output_.log(note);
  }
  output_.flush();
}

void WorkerSession::heartbeat(const pb::Heartbeat& beat) {
  figures_.running = beat.running();
  figures_.backlog = beat.backlog();
  figures_.cpu_percent = std::isfinite(beat.cpu_percent()) ? std::clamp<double>(beat.cpu_percent(), 0, 100) : 0;
  figures_.memory_used =
      capacity_.memory > 0 ? std::min<Bytes>(beat.memory_used_bytes(), capacity_.memory) : beat.memory_used_bytes();
  figures_.disk_free = beat.disk_free_bytes();
  figures_.load = load_of(beat);
  figures_.services = services_of(beat);
  figures_.measured = beat.memory_used_bytes() > 0;
  if (figures_.measured && number_.value != 0 && s_.overview != nullptr) s_.overview->worker_said(number_, figures_);
  const std::uint32_t window = std::min(beat.window(), limits::kWindow);
  if (window != 0 && window != figures_.window && number_.value != 0) {
    figures_.window = window;
    queue::ReportCall call;
    call.worker = number_;
    call.window = window;
    s_.queue->report(std::move(call));
  }
  pb::Frame frame;
  frame.mutable_heartbeat()->set_sent_us(beat.sent_us());
  send(frame, false);
}

}  // namespace grange::server
