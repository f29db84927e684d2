// Beast's parser with a body that goes where we say, piece by piece.
#pragma once

#include "net/asio.hpp"
#include "net/http_text.hpp"

namespace grange::net {

struct SinkBody {
  struct value_type {
    std::function<bool(std::string_view)> sink = {};  // false: no more of it, please
  };
  class reader {
   public:
    template <bool IsRequest, class Fields>
    reader(http::header<IsRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>&, error_code& ec) { ec = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, error_code& ec) {
      ec = {};
      std::size_t n = 0;
      for (auto at = asio::buffer_sequence_begin(buffers); at != asio::buffer_sequence_end(buffers); ++at) {
        const asio::const_buffer one = *at;
        if (body_.sink && !body_.sink(std::string_view(static_cast<const char*>(one.data()), one.size()))) {
          ec = http::error::body_limit;
          return n;
        }
        n += one.size();
      }
      return n;
    }
    void finish(error_code& ec) { ec = {}; }

   private:
    value_type& body_;
  };
};

using RequestParser = http::request_parser<SinkBody>;
using ResponseParser = http::response_parser<SinkBody>;

// Names in lower case; equal names are joined. False: two Host headers.
template <class Fields>
bool copy_headers(const Fields& fields, std::map<std::string, std::string>& into) {
  for (const auto& field : fields) {
    const auto view = field.name_string();
    std::string name = lower(std::string_view(view.data(), view.size()));
    const std::string value(field.value().data(), field.value().size());
    const auto [at, fresh] = into.emplace(name, value);
    if (fresh) continue;
    if (name == "host") return false;
    at->second += name == "cookie" ? "; " : ", ";
    at->second += value;
  }
  return true;
}

}  // namespace grange::net
