#include "cli/exit.hpp"

#include <gtest/gtest.h>

namespace grange::cli {
namespace {

TEST(ExitCode, IsTheOneThatScriptsRelyOn) {
  EXPECT_EQ(exit_code(ErrorClass::unavailable), 3);
  EXPECT_EQ(exit_code(ErrorClass::timeout), 3);
  EXPECT_EQ(exit_code(ErrorClass::not_found), 4);
  EXPECT_EQ(exit_code(ErrorClass::invalid_argument), 2);
  EXPECT_EQ(exit_code(ErrorClass::cancelled), 130);
  for (const ErrorClass c : {ErrorClass::conflict, ErrorClass::storage_full, ErrorClass::internal,
                             ErrorClass::forbidden, ErrorClass::stale}) {
    EXPECT_EQ(exit_code(c), 1) << code(c);
  }
  EXPECT_EQ(exit_code_of_status(404), 4);
  EXPECT_EQ(exit_code_of_status(400), 2);
  EXPECT_EQ(exit_code_of_status(409), 1);
  EXPECT_EQ(exit_code_of_status(503), 1) << "a server that says no is reachable";
}

TEST(Take, ThrowsWhatThePersonReads) {
  EXPECT_EQ(take(Result<int>(7)), 7);
  try {
    take(Result<int>(Error{ErrorClass::not_found, "No job 9."}));
    FAIL() << "did not throw";
  } catch (const Exit& exit) {
    EXPECT_EQ(exit.code, kNotFound);
    EXPECT_EQ(exit.message, "No job 9.");
  }
}

}  // namespace
}  // namespace grange::cli
