// The dashboard's files, linked into the program (cmake/embed_web.cmake), and how they are served.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace grange::server {

struct WebFile {
  std::string_view path;  // "/assets/index-Bx3f9aQ2.js"
  std::string_view type;
  std::string_view tag;    // of its content
  std::string_view bytes;  // gzip'd when `packed`
  std::size_t size = 0;    // unpacked
  bool packed = false;
  bool hashed = false;           // its name changes with its content
  std::string_view brotli = {};  // the same in brotli, as the dashboard's build made it; empty: it did not
};
std::span<const WebFile> web_files();

const WebFile* find_web_file(std::span<const WebFile> files, std::string_view path);  // "/" is /index.html

struct WebAnswer {
  std::string body;
  std::map<std::string, std::string> headers;
};
struct WebTakes {
  bool gzip = false, brotli = false;
};
// nullopt: it is damaged, which a broken build alone can bring about.
std::optional<WebAnswer> answer_web_file(const WebFile& file, WebTakes takes);

std::string_view no_web_html();  // in place of a dashboard that was not built

// Where a path of other farms' pages is found here, seen from that path: "./#/race/compute". "": nowhere.
std::string moved_page(std::string_view path);

}  // namespace grange::server
