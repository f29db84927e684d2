// The whole worker against a scripted server over connections in memory.
#include "worker/scripted_server.hpp"

namespace grange::worker {
namespace {

TEST(Worker, AssignResultAck) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  builtin(orders, 1, "echo");
  for (std::uint32_t i = 0; i < 100; ++i) assign(orders, 1, i, "v" + std::to_string(i));
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 100 && s.worker->status().held == 0; }));
  for (const auto& r : s.results) EXPECT_EQ(r.value(), "v" + std::to_string(TaskId{r.task()}.index()));
  ASSERT_TRUE(s.until([&] { return s.heartbeats > 0; }));
  EXPECT_EQ(s.worker->status().state, "healthy");
}

TEST(Worker, CommandsRunWithOutputAndExitCode) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1,
            "echo hello {} $GRANGE_ARG; pwd; test \"$PWD\" = \"$HOME\" || echo bad; echo oops >&2; exit {index}");
  assign(orders, 1, 0, "you");
  assign(orders, 1, 3, "me");
  shell_job(orders, 2, "");
  orders.mutable_specs(1)->mutable_spec()->mutable_command()->set_shell(false);
  orders.mutable_specs(1)->mutable_spec()->mutable_command()->set_argv(0, "no-such-program");
  assign(orders, 2, 0);
  shell_job(orders, 3, "true");
  orders.mutable_specs(2)->mutable_spec()->mutable_command()->add_files_out("out.txt");
  assign(orders, 3, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 4; }));
  for (const auto& r : s.results) {
    const TaskId task{r.task()};
    if (task.job().value == 2) {
      EXPECT_EQ(r.exit_code(), 127);
      EXPECT_TRUE(r.permanent());
    } else if (task.job().value == 3) {
      EXPECT_EQ(r.message(), "files_out: out.txt was not made");
    } else if (task.index() == 3) {
      EXPECT_EQ(r.failure(), pb::FAILURE_EXIT_CODE);
      EXPECT_EQ(r.message(), "exit code 3: oops");
    } else {
      EXPECT_TRUE(r.ok());
      EXPECT_EQ(r.value().rfind("hello you you\n/", 0), 0u) << r.value();
      EXPECT_EQ(r.value().find("bad"), std::string::npos);
    }
  }
  EXPECT_NE(s.logs.find("hello me me"), std::string::npos);
  EXPECT_TRUE(s.until([&] { return std::filesystem::is_empty(s.dir + "/tasks"); })) << "folders are removed";
}

TEST(Worker, ALotOfOutputArrivesWhole) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "head -c 9000000 /dev/zero");
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1; }));
  EXPECT_EQ(s.logs.size(), 9'000'000u) << "and before the result";
}

TEST(Worker, ResumedSessionLosesAndRepeatsNothing) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  builtin(orders, 1, "sleep", 300);
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.worker->status().running == 1; }));
  s.cut();
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1 && s.worker->status().held == 0; }));
  ASSERT_EQ(s.hellos.size(), 2u);
  EXPECT_EQ(s.hellos[0].session_id(), s.hellos[1].session_id());
  ASSERT_EQ(s.hellos[1].worker().held_size(), 1);
  EXPECT_EQ(s.hellos[1].worker().held(0).epoch(), 5u);
}

TEST(Worker, ServerThatForgotHearsResultsAgainAndRefusedOnesStop) {
  ScriptedServer s;
  s.acks = false;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  builtin(orders, 1, "noop");
  assign(orders, 1, 0);
  shell_job(orders, 2, "sleep 1000");
  assign(orders, 2, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 1 && s.worker->status().running == 1; }));
  s.resume = false;
  s.acks = true;
  pb::Held refused;
  refused.set_task(TaskId::of(JobNo{2}, 0).packed);
  refused.set_attempt(1);
  refused.set_epoch(5);
  s.refuse.push_back(refused);
  s.cut();
  ASSERT_TRUE(s.until([&] { return s.results.size() == 2 && s.worker->status().held == 0; }));
  EXPECT_EQ(s.results[1].task(), s.results[0].task()) << "said again";
  EXPECT_EQ(s.worker->status().running, 0u);
}

TEST(Worker, TakeBackAndCancel) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "sleep 1000");
  for (std::uint32_t i = 0; i < 3; ++i) assign(orders, 1, i);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.started.size() == 2; }));
  pb::WorkerOrders more;
  more.add_take_back(TaskId::of(JobNo{1}, 2).packed);
  for (std::uint32_t i = 0; i < 2; ++i)
    more.add_cancel()->set_task(TaskId::of(JobNo{1}, i).packed), more.mutable_cancel()->rbegin()->set_attempt(1);
  s.send(more);
  ASSERT_TRUE(s.until([&] { return s.returned.size() == 1 && s.results.size() == 2; }));
  for (const auto& r : s.results) EXPECT_EQ(r.failure(), pb::FAILURE_CANCELLED);
}

TEST(Worker, DrainFinishesReturnsAndSaysGoodbye) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  builtin(orders, 1, "sleep", 100);
  for (std::uint32_t i = 0; i < 4; ++i) assign(orders, 1, i);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.worker->status().running == 2; }));
  bool done = false;
  s.worker->drain([&] { done = true; });
  ASSERT_TRUE(s.until([&] { return done; }));
  EXPECT_EQ(s.results.size(), 2u);
  EXPECT_EQ(s.returned.size(), 2u);
  EXPECT_EQ(s.goodbye, "drained");
}

TEST(Worker, ADrainingWorkerSaysSoAtOnceAndInEveryHello) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  EXPECT_FALSE(s.hellos[0].worker().draining());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "sleep 1000");
  assign(orders, 1, 0);
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.worker->status().running == 1; }));
  EXPECT_EQ(s.drainings, 0);
  s.worker->drain([] {});
  ASSERT_TRUE(s.until([&] { return s.drainings > 0; }));
  s.cut();
  ASSERT_TRUE(s.until([&] { return s.hellos.size() == 2; }));
  EXPECT_TRUE(s.hellos[1].worker().draining());
  EXPECT_EQ(s.drainings, 1) << "once is enough";
}

TEST(Worker, AnAttemptThatResumesFromACheckpointSaysSo) {
  ScriptedServer s;
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  shell_job(orders, 1, "true");
  assign(orders, 1, 0);
  pb::Assignment& again = assign(orders, 1, 1);
  again.set_attempt(3);
  again.set_has_checkpoint(true);
  again.set_checkpoint("state");
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 2; }));
  EXPECT_EQ(s.system_logs, "attempt 3 resumes from the checkpoint of an earlier attempt\n");
}

TEST(Worker, OneWorkerADataFolder) {
  ScriptedServer s;
  const auto second = open_data_dir(s.dir);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().cls, ErrorClass::conflict);
  EXPECT_NE(second.error().message.find("--data"), std::string::npos);
}

TEST(Worker, PythonTasks) {
  WorkerOptions options;
  if (!with_python(options)) GTEST_SKIP() << "set GRANGE_TEST_PYTHON to an interpreter that has cloudpickle and grange";
  ScriptedServer s(options);
  ASSERT_TRUE(s.online());
  pb::WorkerOrders orders;
  python_job(orders, 1, s.blob("cbuiltins\nabs\n."));
  python_job(orders, 2, s.blob("cos\n_exit\n."));
  python_job(orders, 3, s.blob("ctime\nsleep\n.")).set_time_limit_ms(300);
  python_job(orders, 4, s.blob("cbuiltins\nprint\n."));
  python_job(orders, 5, s.blob("cos\nabort\n."));
  for (std::uint32_t i = 0; i < 50; ++i) assign(orders, 1, i, "[-" + std::to_string(i) + "]");
  assign(orders, 1, 50, "[\"x\"]");
  assign(orders, 2, 0, "[7]");
  assign(orders, 3, 0, "[1000]");
  assign(orders, 4, 0, "[\"printed here\"]");
  assign(orders, 5, 0, "[]");
  s.send(orders);
  ASSERT_TRUE(s.until([&] { return s.results.size() == 55; })) << s.results.size() << s.worker->status_json();
  for (const auto& r : s.results) {
    const TaskId task{r.task()};
    switch (task.job().value) {
      case 1:
        if (task.index() == 50) {
          EXPECT_EQ(r.failure(), pb::FAILURE_EXCEPTION);
          EXPECT_EQ(r.exception(), "TypeError");
          EXPECT_EQ(r.stage(), pb::STAGE_EXECUTE);
          EXPECT_NE(r.traceback().find("TypeError"), std::string::npos);
        } else {
          EXPECT_TRUE(r.ok()) << r.message();
          EXPECT_EQ(r.value(), std::to_string(task.index()));
        }
        break;
      case 2:
        EXPECT_EQ(r.failure(), pb::FAILURE_ENGINE);
        EXPECT_NE(r.message().find("exited with code 7"), std::string::npos) << r.message();
        break;
      case 3:
        EXPECT_EQ(r.failure(), pb::FAILURE_TIME_LIMIT) << r.message();
        break;
      case 5:
        EXPECT_EQ(r.failure(), pb::FAILURE_ENGINE);
        EXPECT_NE(r.message().find("killed by signal 6"), std::string::npos) << r.message();
        break;
      default:
        EXPECT_TRUE(r.ok()) << r.message();
    }
  }
  EXPECT_NE(s.logs.find("printed here"), std::string::npos);
}

}  // namespace
}  // namespace grange::worker
