#include "server/web.hpp"

#include <zlib.h>

namespace grange::server {
namespace {

std::optional<std::string> unpacked(const WebFile& file) {
  z_stream z{};
  if (inflateInit2(&z, 15 + 16) != Z_OK) return std::nullopt;
  std::string out(file.size, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(file.bytes.data()));  // zlib does not write there
  z.avail_in = static_cast<uInt>(file.bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const bool whole = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == file.size;
  inflateEnd(&z);
  if (!whole) return std::nullopt;
  return out;
}

}  // namespace

const WebFile* find_web_file(std::span<const WebFile> files, std::string_view path) {
  if (path == "/") path = "/index.html";
  for (const WebFile& file : files) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

std::optional<WebAnswer> answer_web_file(const WebFile& file, WebTakes takes) {
  WebAnswer out;
  out.headers["Content-Type"] = std::string(file.type);
  out.headers["Cache-Control"] = file.hashed ? "public, max-age=31536000, immutable" : "no-cache";
  const bool brotli = takes.brotli && !file.brotli.empty();
  const bool gzip = !brotli && file.packed && takes.gzip;
  if (brotli) {
    out.body = std::string(file.brotli);
  } else if (!file.packed || gzip) {
    out.body = std::string(file.bytes);
  } else {
    auto plain = unpacked(file);
    if (!plain) return std::nullopt;
    out.body = std::move(*plain);
  }
  // Each form has a tag of its own, or a cache could mix them up.
  out.headers["ETag"] = '"' + std::string(file.tag) + (brotli ? "-br\"" : gzip ? "-gz\"" : "\"");
  if (file.packed || !file.brotli.empty()) out.headers["Vary"] = "Accept-Encoding";
  if (brotli) out.headers["Content-Encoding"] = "br";
  if (gzip) out.headers["Content-Encoding"] = "gzip";
  return out;
}

std::string_view no_web_html() {
  return R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Grange</title><link rel="stylesheet" href="assets/docs.css"></head>
<body><header><h1>Grange</h1><nav><a href="docs">API</a></nav></header>
<main><h2>The farm runs; its dashboard was not built</h2>
<p>This program was built without Node, which the dashboard needs. In the folder of the sources:</p>
<div class="empty"><p><code>./dev web</code> builds the dashboard, and <code>./dev build</code> puts it into the program.</p></div>
<p>All that the dashboard shows is there meanwhile on the command line (<code>grange jobs</code>, <code>grange workers</code>,
<code>grange explain</code>) and over <a href="docs">REST</a>.</p>
</main></body></html>
)";
}

std::string moved_page(std::string_view path) {
  std::string up = "./";
  if (path.size() > 1 && path.ends_with('/')) {  // seen from /image/, this folder is one above
    path.remove_suffix(1);
    up = "../";
  }
  if (path == "/compute" || path == "/image") return up + "#/race" + std::string(path);
  if (path == "/admin") return up + "#/admin";
  return {};
}

}  // namespace grange::server
