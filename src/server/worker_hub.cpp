#include "server/worker_hub.hpp"

#include "server/text.hpp"

namespace grange::server {

const std::string& WorkerHub::name_of(WorkerNo worker) const {
  static const std::string none;
  const auto it = names_.find(worker);
  return it == names_.end() ? none : it->second;
}

const std::string& WorkerHub::host_of(WorkerNo worker) const {
  const WorkerChannel* channel = find(worker);
  return channel == nullptr ? name_of(worker) : channel->host();
}

std::optional<WorkerNo> WorkerHub::number_of(const std::string& id) const {
  for (const auto& [number, name] : names_) {
    if (name == id) return number;
  }
  return std::nullopt;
}

void WorkerHub::bind(WorkerNo worker, std::shared_ptr<WorkerChannel> channel) {
  remember(worker, channel->id());
  channels_[worker] = std::move(channel);
}

void WorkerHub::unbind(WorkerNo worker, const WorkerChannel* channel) {
  const auto it = channels_.find(worker);
  if (it != channels_.end() && it->second.get() == channel) channels_.erase(it);
}

WorkerChannel* WorkerHub::find(WorkerNo worker) const {
  const auto it = channels_.find(worker);
  return it == channels_.end() ? nullptr : it->second.get();
}

void WorkerHub::tick(Instant now) {
  while (!gone_.empty()) {
    const auto& [worker, since] = gone_.front();
    if (now - since < std::chrono::duration_cast<Micros>(s_.options.lease) && gone_.size() <= limits::kWorkers) return;
    if (names_.size() <= limits::kWorkers) {
      // There is room: keep the name, and look again when there is none. The list is bounded all the same.
      if (gone_.size() <= limits::kWorkers) return;
    } else if (!channels_.contains(worker)) {
      names_.erase(worker);
    }
    gone_.pop_front();
  }
}

void WorkerHub::deliver(queue::Delivery& delivery) {
  // Deliveries come in runs of one worker and one job: remember the last of each.
  WorkerNo last{};
  WorkerChannel* channel = nullptr;
  const auto at = [&](WorkerNo worker) -> WorkerChannel* {
    if (worker == last) return channel;
    last = worker;
    const auto it = channels_.find(worker);
    channel = it == channels_.end() ? nullptr : it->second.get();
    if (channel != nullptr && !channel->touched) {
      channel->touched = true;
      touched_.push_back(it->second);
    }
    return channel;
  };
  for (const queue::WorkerChange& change : delivery.workers) {
    if (change.kind != queue::WorkerChangeKind::lost) continue;
    if (WorkerChannel* to = at(change.worker)) to->lost();
    last = {};
  }
  JobNo job{};
  JobMetaPtr meta;
  for (queue::Assign& assign : delivery.assign) {
    WorkerChannel* to = at(assign.worker);
    if (to == nullptr) continue;  // it left; the queue will learn, or knows already
    if (assign.fence.task.job() != job) {
      job = assign.fence.task.job();
      meta = s_.jobs->find(job);
    }
    to->assign(assign, meta);
  }
  for (const queue::Order& order : delivery.cancel) {
    if (WorkerChannel* to = at(order.worker)) to->cancel(order);
  }
  for (const queue::PauseOrder& order : delivery.pause) {
    if (WorkerChannel* to = at(order.worker)) to->pause(order);
  }
  for (const queue::Order& order : delivery.take_back) {
    if (WorkerChannel* to = at(order.worker)) to->take_back(order);
  }
  for (const queue::AckOrder& ack : delivery.acks) {
    if (WorkerChannel* to = at(ack.worker)) to->acknowledge(ack);
  }
  const auto touched = std::move(touched_);
  touched_.clear();
  for (const auto& one : touched) {
    one->touched = false;
    one->flush();
  }
}

Result<WorkerNo> WorkerHub::known(const std::string& id) const {
  if (const auto number = number_of(id)) return *number;
  return Error{ErrorClass::not_found,
               "There is no worker \"" + cut_utf8(id, limits::kNameBytes) + "\". List them with: grange workers"};
}

Result<> WorkerHub::drain(const std::string& id) {
  const auto number = known(id);
  if (!number) return number.error();
  WorkerChannel* channel = find(*number);
  if (channel == nullptr) return Error{ErrorClass::conflict, "The worker \"" + id + "\" is not connected."};
  s_.queue->drain(*number);
  channel->drain();
  channel->flush();
  return {};
}

}  // namespace grange::server
