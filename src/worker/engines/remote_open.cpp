#include "worker/engines/remote_open.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace grange::worker {

RemoteOpen::RemoteOpen(std::string file, net::Loop& loop, net::HttpClient& http, const Services& services)
    : RemoteOpen(std::move(file), loop, http, services, Times()) {}

RemoteOpen::RemoteOpen(std::string file, net::Loop& loop, net::HttpClient& http, const Services& services, Times times)
    : file_(std::move(file)), loop_(loop), http_(http), services_(services), times_(times) {
  std::ifstream in(file_);
  std::string service, url, path;
  while (open_.size() < 10'000 && in >> service >> url >> path) {
    if (path.starts_with('/')) open_.emplace(service, url, path);
  }
  left_ = open_;
  // The services are found after the engines were made.
  if (!left_.empty()) again_ = loop_.after(Millis{1}, [this] { take_back(); });
}

void RemoteOpen::add(const std::string& service, const std::string& url, const std::string& path) {
  open_.emplace(service, url, path);
  save();
}

void RemoteOpen::remove(const std::string& service, const std::string& url, const std::string& path) {
  if (open_.erase({service, url, path}) > 0) save();
}

void RemoteOpen::save() const {
  if (open_.empty()) {
    ::unlink(file_.c_str());
    return;
  }
  const std::string next = file_ + ".new";
  std::ofstream out(next, std::ios::trunc);
  for (const auto& [service, url, path] : open_) out << service << ' ' << url << ' ' << path << '\n';
  out.close();
  if (out) ::rename(next.c_str(), file_.c_str());
}

void RemoteOpen::take_back() {
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
  if (!left_.empty() && ++looks_ < times_.looks) {
    loop_.post([old = std::shared_ptr<net::Timer>(std::move(again_))] {});  // we may be in it
    again_ = loop_.after(times_.look, [this] { take_back(); });
  }
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
    // Whatever it says, it has heard of it; one that had ended says 4xx.
    if (answer && answer->status < 500 && answer->status != 429)
      return remove(std::get<0>(entry), std::get<1>(entry), std::get<2>(entry));
    left_.insert(entry);
    if (++looks_ >= times_.looks) return;
    loop_.post([old = std::shared_ptr<net::Timer>(std::move(again_))] {});
    again_ = loop_.after(times_.look, [this] { take_back(); });
  });
}

}  // namespace grange::worker
