#include "server/web.hpp"

#include <gtest/gtest.h>

#include "net/http_text.hpp"
#include "net/listener.hpp"
#include "server/authorize.hpp"

namespace grange::server {
namespace {

TEST(Web, APackedFileIsSentEitherWay) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "one line of many\n";
  const std::string packed = net::gzip(text);
  const WebFile file{.path = "/assets/a-12345678.js",
                     .type = "text/javascript",
                     .tag = "abc",
                     .bytes = packed,
                     .size = text.size(),
                     .packed = true,
                     .hashed = true};
  auto plain = answer_web_file(file, {});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->body, text);
  EXPECT_EQ(plain->headers.at("ETag"), "\"abc\"");
  EXPECT_FALSE(plain->headers.contains("Content-Encoding"));
  auto small = answer_web_file(file, {.gzip = true});
  ASSERT_TRUE(small);
  EXPECT_EQ(small->body, packed);
  EXPECT_EQ(small->headers.at("ETag"), "\"abc-gz\"");
  EXPECT_EQ(small->headers.at("Content-Encoding"), "gzip");
  EXPECT_EQ(small->headers.at("Vary"), "Accept-Encoding");
  EXPECT_EQ(small->headers.at("Cache-Control"), "public, max-age=31536000, immutable");
}

TEST(Web, BrotliGoesBeforeGzipWhereThereIsSome) {
  const WebFile file{.path = "/a.js",
                     .type = "text/javascript",
                     .tag = "abc",
                     .bytes = "gz",
                     .size = 9,
                     .packed = true,
                     .brotli = "br"};
  const auto smallest = answer_web_file(file, {.gzip = true, .brotli = true});
  EXPECT_EQ(smallest->body, "br");
  EXPECT_EQ(smallest->headers.at("Content-Encoding"), "br");
  EXPECT_EQ(smallest->headers.at("ETag"), "\"abc-br\"");
  EXPECT_EQ(smallest->headers.at("Vary"), "Accept-Encoding");
  EXPECT_EQ(answer_web_file(file, {.gzip = true})->body, "gz");
}

TEST(Web, ADamagedFileIsNotSent) {
  const WebFile file{.path = "/x", .type = "text/plain", .tag = "t", .bytes = "no gzip", .size = 7, .packed = true};
  EXPECT_FALSE(answer_web_file(file, {}));
  EXPECT_TRUE(answer_web_file(file, {.gzip = true})) << "not looked into on its way";
}

TEST(Web, ThePageIsAskedAnewAndFoundByItsFolder) {
  const WebFile files[] = {{.path = "/a.png", .type = "image/png", .tag = "1", .bytes = "png", .size = 3},
                           {.path = "/index.html", .type = "text/html", .tag = "2", .bytes = "html", .size = 4}};
  EXPECT_EQ(find_web_file(files, "/"), &files[1]);
  EXPECT_EQ(find_web_file(files, "/none"), nullptr);
  EXPECT_EQ(find_web_file({}, "/"), nullptr);
  const auto page = answer_web_file(files[1], {.gzip = true, .brotli = true});
  EXPECT_EQ(page->headers.at("Cache-Control"), "no-cache");
  EXPECT_FALSE(page->headers.contains("Content-Encoding")) << "it is not packed";
}

TEST(Web, OldAddressesLeadOnWhereverTheyStand) {
  EXPECT_EQ(moved_page("/compute"), "./#/race/compute");
  EXPECT_EQ(moved_page("/image/"), "../#/race/image");
  EXPECT_EQ(moved_page("/admin"), "./#/admin");
  EXPECT_EQ(moved_page("/other"), "");
}

net::HttpRequest with_protocols(const std::string& list) {
  net::HttpRequest head;
  head.headers["sec-websocket-protocol"] = list;
  return head;
}

TEST(Web, ASocketsTokenMayBeASubprotocol) {
  const Authenticator door("a token, 16 or more");
  const std::string good = "grange.bearer.YSB0b2tlbiwgMTYgb3IgbW9yZQ";
  for (const std::string& list : {good, "grange.json, " + good, "grange.json ,\t" + good + "== ,other"})
    EXPECT_EQ(door.identify_socket(with_protocols(list))->kind, PrincipalKind::token) << list;
  for (const char* bad : {"grange.bearer.", "grange.bearer.YSB0b2tlbg", "grange.bearer.%%%"})
    EXPECT_FALSE(door.identify_socket(with_protocols(bad))) << bad;
  EXPECT_EQ(door.identify_socket(with_protocols("grange.json"))->kind, PrincipalKind::anonymous);
  EXPECT_EQ(door.identify(with_protocols(good))->kind, PrincipalKind::anonymous) << "of a WebSocket only";
  auto both = with_protocols(good);
  both.headers["authorization"] = "Bearer wrong";
  EXPECT_FALSE(door.identify_socket(both)) << "the header goes first";
  EXPECT_EQ(Authenticator("").identify_socket(with_protocols(good))->kind, PrincipalKind::local);
}

}  // namespace
}  // namespace grange::server
