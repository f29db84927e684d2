// One file from a URL to a path: resumed where an earlier try stopped, checked against its SHA-256 and the disk's room,
// and seen under its name only when it is whole. Until then it is NAME.part; NAME.part.json says of what it is a part,
// and where the server gave nothing to tell that by, the part goes when the download does.
#pragma once

#include <functional>
#include <memory>

#include "net/http_client.hpp"
#include "worker/engines/failure.hpp"

namespace grange::worker {

struct DownloadOptions {
  std::string url, path;
  std::string sha256;                                    // "": not known
  std::string bearer;                                    // for this URL only, not for where it leads
  Bytes reserve = 512 * MiB;                             // that stays free on the disk
  int tries = 5;                                         // after a connection that broke
  Millis wait{1'000};                                    // between them
  std::function<Bytes(const std::string& folder)> room;  // for tests; else that of the disk
};
struct Downloaded {
  Bytes bytes = 0, resumed_from = 0;
  bool was_there = false;
};
class Download {  // destroyed: cancelled, nothing is called any more
 public:
  virtual ~Download() = default;
  virtual void pause(bool on) = 0;
};
struct DownloadEvents {
  std::function<void(Bytes done, Bytes total, const std::string& status)> progress;  // total 0: not known
  std::function<void(Downloaded)> done;
  std::function<void(EngineFailure)> failed;
};
// Where an answer at `from` leads. What was asked for over TLS is not fetched without it.
Result<std::string> redirected(const std::string& from, const std::string& to);

// `disk`: a thread for what blocks. Both callbacks that end it come later, on `loop`; they may destroy it.
std::unique_ptr<Download> start_download(net::Loop& loop, net::Loop& disk, net::HttpClient& http,
                                         DownloadOptions options, DownloadEvents events);

}  // namespace grange::worker
