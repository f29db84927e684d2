#include "worker/engines/remote_open.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "worker/engines/remote_rules.hpp"

namespace grange::worker {

namespace {

constexpr std::size_t kOpenAtMost = 10'000;
constexpr std::int64_t kLeftAtMostMs = 86'400'000;
constexpr int kDoublings = 6;  // of the time between two rounds

}  // namespace

RemoteOpen::RemoteOpen(std::string file, net::Loop& loop, net::HttpClient& http, const Services& services,
                       const Clock& clock, Millis look)
    : file_(std::move(file)), loop_(loop), http_(http), services_(services), clock_(clock), look_(look) {
  std::ifstream in(file_);
  std::string line;
  while (open_.size() < kOpenAtMost && std::getline(in, line)) {
    std::istringstream words(line);
    std::string service, url, path;
    std::int64_t since = 0;
    if (!(words >> service >> url >> path) || !path.starts_with('/')) continue;
    words >> since;
    // A clock that was wrong makes nothing last.
    open_[{service, url, path}] = since > 0 ? std::min(since, wall()) : wall();
    left_.emplace(service, url, path);
  }
  if (left_.empty()) return;
  save();
  plan(Millis{1});  // the services are found after the engines were made
}

void RemoteOpen::add(const std::string& service, const std::string& url, const std::string& path) {
  if (open_.size() >= kOpenAtMost) drop_oldest();
  const Entry entry{service, url, path};
  open_[entry] = 0;
  left_.erase(entry);
  save();
}

void RemoteOpen::remove(const std::string& service, const std::string& url, const std::string& path) {
  remove({service, url, path});
}

void RemoteOpen::remove(const Entry& entry) {
  left_.erase(entry);
  if (open_.erase(entry) > 0) save();
}

void RemoteOpen::leave(const std::string& service, const std::string& url, const std::string& path) {
  const Entry entry{service, url, path};
  const auto it = open_.find(entry);
  if (it == open_.end()) return;
  it->second = wall();
  left_.insert(entry);
  save();
  if (rounds_ > 0) planned_ = false;  // sooner than the next
  rounds_ = 0;
  plan(look_);
}

// Of what is left; what runs stays.
void RemoteOpen::drop_oldest() {
  const auto oldest = std::min_element(left_.begin(), left_.end(),
                                       [this](const Entry& a, const Entry& b) { return open_.at(a) < open_.at(b); });
  if (oldest == left_.end()) return;
  open_.erase(*oldest);
  left_.erase(oldest);
}

void RemoteOpen::save() const {
  if (open_.empty()) {
    ::unlink(file_.c_str());
    return;
  }
  const std::string next = file_ + ".new";
  std::ofstream out(next, std::ios::trunc);
  for (const auto& [entry, since] : open_) {
    const auto& [service, url, path] = entry;
    out << service << ' ' << url << ' ' << path << ' ' << since << '\n';
  }
  out.close();
  if (out) ::rename(next.c_str(), file_.c_str());
}

void RemoteOpen::plan(Millis delay) {
  if (std::exchange(planned_, true)) return;
  if (again_) loop_.post([old = std::shared_ptr<net::Timer>(std::move(again_))] {});  // we may be in it
  again_ = loop_.after(delay, [this] {
    planned_ = false;
    take_back();
  });
}

void RemoteOpen::take_back() {
  ++rounds_;
  const std::int64_t now = wall();
  const auto old = std::erase_if(left_, [&](const Entry& entry) {
    if (now - open_.at(entry) < kLeftAtMostMs) return false;
    open_.erase(entry);
    return true;
  });
  if (old > 0) save();
  const std::set<Entry> left = left_;
  for (const Entry& entry : left) {
    const auto& all = services_.list();
    const auto service = std::find_if(all.begin(), all.end(), [&](const ServiceInfo& one) {
      return one.shown.name() == std::get<0>(entry) && one.url == std::get<1>(entry);  // or its key is not for that URL
    });
    if (service == all.end()) continue;
    left_.erase(entry);
    cancel(entry, *service);
  }
  if (!left_.empty()) plan(look_ * (1 << std::min(rounds_, kDoublings)));
}

void RemoteOpen::cancel(const Entry& entry, const ServiceInfo& service) {
  net::ClientRequest request;
  request.method = "POST";
  request.url = service.url + std::get<2>(entry);
  request.headers["Accept"] = "application/json";
  if (!service.key.empty()) request.headers["Authorization"] = "Bearer " + service.key;
  request.limit = 1 * MiB;
  const auto at = calls_.emplace(calls_.end());
  *at = http_.send(std::move(request), [this, at, entry](const Result<net::ClientResponse>& answer) {
    const auto over = std::move(*at);
    calls_.erase(at);
    if (answer && cancel_heard(answer->status)) return remove(entry);
    const auto it = open_.find(entry);
    if (it == open_.end() || it->second == 0) return;
    left_.insert(entry);
    plan(look_ * (1 << std::min(rounds_, kDoublings)));
  });
}

}  // namespace grange::worker
