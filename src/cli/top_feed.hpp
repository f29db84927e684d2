// Carries asks to the server and answers back, beside the thread that has the screen: a slow answer holds up nothing.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cli/top_model.hpp"
#include "net/http_client.hpp"
#include "net/loop.hpp"

namespace grange::cli::top {

// Made, used and destroyed on one thread.
class Feed {
 public:
  Feed(std::string url, std::string token);
  ~Feed();  // what is under way is dropped
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  void send(const Ask& ask);
  std::vector<Answer> take();
  int fd() const { return wake_; }  // readable: there are answers to take

 private:
  void heard(Answer answer);
  std::string url_, token_;
  int wake_;
  std::mutex mutex_;
  std::vector<Answer> answers_;
  net::Loop loop_;
  std::unique_ptr<net::HttpClient> http_;
  std::map<std::uint64_t, std::unique_ptr<net::HttpClient::Call>> calls_;  // of the loop's thread
};

}  // namespace grange::cli::top
