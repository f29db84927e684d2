// A run as a file to take away. Pure: of what GET /api/runs/{id} shows.
#pragma once

#include <boost/json/object.hpp>
#include <string>

namespace grange::server {

namespace json = boost::json;

// One line a request. Texts that a spreadsheet would take for a formula are defused.
std::string run_csv(const json::object& metadata, const json::object& summary);

// One page that needs nothing else: no script, no font, no picture from outside; charts are drawings in the page.
std::string run_html(const json::object& metadata, const json::object& summary);

}  // namespace grange::server
