// Boost.JSON has no library of its own on Debian 12: this is the one place that compiles it.
#include <boost/json/src.hpp>
