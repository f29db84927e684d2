#include <fmt/format.h>

#include <cstdio>

#include "server/api/rest.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

Error not_a_sha() {
  return Error{ErrorClass::invalid_argument, "A blob's name is its SHA-256: 64 lower-case hexadecimal characters."};
}

// "bytes=10-19", "bytes=10-", "bytes=-5". nullopt: none, or one that need not be heeded.
std::optional<std::pair<std::uint64_t, std::uint64_t>> read_range(std::string_view text, std::uint64_t size) {
  if (!text.starts_with("bytes=") || text.find(',') != std::string_view::npos) return std::nullopt;
  text.remove_prefix(6);
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = to_number(text.substr(0, dash)), last = to_number(text.substr(dash + 1));
  if (!first) {
    if (dash != 0 || !last) return std::nullopt;
    const std::uint64_t tail = std::min(*last, size);
    return std::pair(size - tail, tail);
  }
  if (last && *last < *first) return std::nullopt;
  if (*first >= size) return std::pair(size, std::uint64_t{0});
  const std::uint64_t end = last ? std::min(*last + 1, size) : size;
  return std::pair(*first, end - *first);
}

}  // namespace

void Rest::put_blob(RestCallPtr call) {
  const std::string sha256 = call->path["sha256"];
  if (!store::is_sha256(sha256)) return call->fail(not_a_sha());
  // Two who bring the same bytes at once: the second waits for the first, and most likely need not send any.
  if (const auto it = uploads_.find(sha256); it != uploads_.end()) {
    it->second.push_back([this, call, sha256] { upload(call, sha256); });
    return;
  }
  upload(call, sha256);
}

void Rest::upload(RestCallPtr call, std::string sha256) {
  if (const auto size = s_.blobs->size(sha256))
    return call->answer(200, json::object{{"sha256", sha256}, {"bytes", *size}, {"existed", true}});
  if (const auto it = uploads_.find(sha256); it != uploads_.end()) {
    it->second.push_back([this, call, sha256] { upload(call, sha256); });
    return;
  }
  std::uint64_t offset = 0;
  if (!call->number("offset", 0, limits::kBlob, 0, offset)) return;
  const Bytes received = s_.blobs->received(sha256);
  if (offset > received) {
    return call->fail({ErrorClass::conflict, fmt::format("{} bytes have arrived so far; go on from there.", received),
                       fmt::format(R"({{"received":{}}})", received)});
  }
  // A blob counts against the same reserve as jobs do: an upload must not take the room that accepted work needs.
  const auto& headers = call->request().headers;
  const auto length = headers.find("content-length");
  const auto bytes = length == headers.end() ? std::nullopt : to_number(length->second);
  if (!bytes) return call->fail({ErrorClass::invalid_argument, "Say how long the blob is, with Content-Length."});
  if (auto room = s_.queue->room_for(*bytes); !room) return call->fail(room.error());
  uploads_[sha256];
  call->exchange->read_body_to_file(
      s_.blobs->part_path(sha256), offset, limits::kBlob,
      [this, call, sha256, post = s_.post](Result<std::uint64_t> written) {
        post([this, call, sha256, written = std::move(written)] {
          if (!written) {
            if (written.error().cls == ErrorClass::storage_full) std::remove(s_.blobs->part_path(sha256).c_str());
            upload_over(sha256);
            return call->fail(written.error());
          }
          s_.files->read<Unit>([blobs = s_.blobs, sha256](store::Reader&) { return blobs->finish(sha256); },
                               [this, call, sha256](Result<> done) {
                                 upload_over(sha256);
                                 if (!done) return call->fail(done.error());
                                 call->answer(201, json::object{{"sha256", sha256},
                                                                {"bytes", s_.blobs->size(sha256).value_or(0)},
                                                                {"existed", false}});
                               });
        });
      });
}

void Rest::upload_over(const std::string& sha256) {
  const auto it = uploads_.find(sha256);
  if (it == uploads_.end()) return;
  const auto waiting = std::move(it->second);
  uploads_.erase(it);
  for (const auto& next : waiting) s_.post(next);
}

void Rest::get_blob(RestCallPtr call) {
  const std::string sha256 = call->path["sha256"];
  if (!store::is_sha256(sha256)) return call->fail(not_a_sha());
  const auto size = s_.blobs->size(sha256);
  if (!size) return call->fail({ErrorClass::not_found, "There is no blob " + sha256 + "."});
  net::HttpResponse head{.status = 200, .headers = security_headers(), .body = {}};
  const std::string etag = "\"" + sha256 + "\"";
  head.headers["Content-Type"] = "application/octet-stream";
  head.headers["Content-Security-Policy"] =
      "default-src 'none'; sandbox";  // whatever the bytes are, they are not a page of ours
  head.headers["ETag"] = etag;
  head.headers["Accept-Ranges"] = "bytes";
  head.headers["Cache-Control"] = "private, max-age=31536000, immutable";
  const auto& headers = call->request().headers;
  if (const auto match = headers.find("if-none-match");
      match != headers.end() && match->second.find(etag) != std::string::npos) {
    head.status = 304;
    return call->exchange->respond(std::move(head));
  }
  std::uint64_t from = 0, length = *size;
  if (const auto range = headers.find("range"); range != headers.end()) {
    if (const auto part = read_range(range->second, *size)) {
      std::tie(from, length) = *part;
      if (length == 0) {
        head.status = 416;
        head.headers["Content-Range"] = fmt::format("bytes */{}", *size);
        return call->exchange->respond(std::move(head));
      }
      head.status = 206;
      head.headers["Content-Range"] = fmt::format("bytes {}-{}/{}", from, from + length - 1, *size);
    }
  }
  call->exchange->respond_file(std::move(head), s_.blobs->path(sha256), from, length);
}

void Rest::get_blob_status(RestCallPtr call) {
  const std::string sha256 = call->path["sha256"];
  if (!store::is_sha256(sha256)) return call->fail(not_a_sha());
  const auto size = s_.blobs->size(sha256);
  call->answer(200, json::object{{"sha256", sha256},
                                 {"received", size ? *size : s_.blobs->received(sha256)},
                                 {"complete", size.has_value()}});
}

void Rest::put_model(RestCallPtr call) {
  const std::string name = call->path["name"], version = call->path["version"];
  if (!valid_name(name) || !valid_name(version))
    return call->fail(
        {ErrorClass::invalid_argument, "A model's name and version have no characters that cannot be seen."});
  if (call->request().body.empty())
    return call->fail({ErrorClass::invalid_argument,
                       "The body is empty; send the code's bytes, such as cloudpickle.dumps(function)."});
  struct Put {
    std::string sha256;
    bool existed = false;
  };
  s_.files->read<Put>(
      [call, name, version, blobs = s_.blobs](store::Reader& reader) -> Result<Put> {
        auto sha256 = blobs->put(call->exchange->request().body);
        if (!sha256) return std::move(sha256).error();
        auto known = reader.get_model(name, version);
        if (!known) return std::move(known).error();
        if (known->has_value() && (*known)->sha256 != *sha256) {
          return Error{ErrorClass::conflict, "The model " + name + "/" + version +
                                                 " has other code already. Give the new code a new version."};
        }
        return Put{*sha256, known->has_value()};
      },
      [this, call, name, version](Result<Put> put) {
        if (!put) return call->fail(put.error());
        const Bytes bytes = call->request().body.size();
        const json::object body{{"name", name}, {"version", version}, {"code_sha256", put->sha256}, {"bytes", bytes}};
        if (put->existed) return call->answer(200, body);
        s_.queue->maintain([call, name, version, bytes, body, sha256 = put->sha256, at = s_.clock.now().wall,
                            post = s_.post](store::Store& store) {
          auto result = store.put_model(name, version, sha256, bytes, at);
          post([call, body, result = std::move(result)] {
            if (!result) return call->fail(result.error());
            call->answer(201, body);
          });
        });
      });
}

void Rest::get_model(RestCallPtr call) {
  s_.files->read<json::object>(
      [name = call->path["name"], version = call->path["version"],
       blobs = s_.blobs](store::Reader& reader) -> Result<json::object> {
        auto row = reader.get_model(name, version);
        if (!row) return std::move(row).error();
        if (!row->has_value())
          return Error{ErrorClass::not_found, "Model not found: " + cut_utf8(name + "/" + version, 300)};
        auto code = blobs->get((*row)->sha256);
        if (!code) return std::move(code).error();
        return json::object{{"name", name},
                            {"version", version},
                            {"code_sha256", (*row)->sha256},
                            {"bytes", (*row)->bytes},
                            {"code", to_hex(*code)}};
      },
      [call](Result<json::object> model) {
        if (!model) return call->fail(model.error());
        const std::string etag = "\"" + std::string(model->at("code_sha256").as_string()) + "\"";
        call->answer(200, *model, {{"ETag", etag}});
      });
}

void Rest::get_models(RestCallPtr call) {
  s_.readers->read<std::vector<store::ModelRow>>([](store::Reader& reader) { return reader.list_models(); },
                                                 [call](Result<std::vector<store::ModelRow>> rows) {
                                                   if (!rows) return call->fail(rows.error());
                                                   json::array out;
                                                   for (const store::ModelRow& row : *rows) {
                                                     out.push_back(json::object{{"name", row.name},
                                                                                {"version", row.version},
                                                                                {"code_sha256", row.sha256},
                                                                                {"bytes", row.bytes},
                                                                                {"created_at", time_json(row.at)}});
                                                   }
                                                   call->answer(200, out);
                                                 });
}

}  // namespace grange::server
