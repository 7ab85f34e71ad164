// ./train: trains a GPT under a FLOPs budget and leaves a run record.
#include "trainer/train.h"

#include <iostream>

#include "trainer/command_line.h"

int main(int argc, char** argv) {
  return nanoflex::run_program([&] {
    constexpr int kInterrupted = 130;
    const auto command = nanoflex::parse_train_command({argv + 1, argv + argc});
    if (command.print) {
      std::cout << *command.print;
      return 0;
    }
    const auto result = nanoflex::train(command.config, {argv, argv + argc}, command.resume);
    return result.status == "interrupted" ? kInterrupted : 0;
  });
}
