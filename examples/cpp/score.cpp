// Score images with a file that `fsad-edge export` wrote. The program needs only ONNX Runtime.
//
//     score part.onnx photo.ppm...
//
// The images are binary PPM files (P6, 8 bits) at the model's size, because the score depends on
// how they are resized (../README.md). Exit code 0: all good; 1: an anomaly found; 2: an error.
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

int64_t next_number(std::istream& file) {
  std::string comment;  // a comment goes from # to the end of the line
  while ((file >> std::ws).peek() == '#') std::getline(file, comment);
  int64_t number = -1;
  return file >> number ? number : -1;
}

// The RGB pixels of an image, row by row.
std::vector<uint8_t> read_image(const std::string& path, int64_t height, int64_t width) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be opened.");
  const bool p6 = file.get() == 'P' && file.get() == '6';
  const int64_t w = next_number(file), h = next_number(file), largest = next_number(file);
  if (!p6 || largest != 255) throw std::runtime_error(path + " is not a PPM (P6, 8 bits).");
  if (w != width || h != height) {
    throw std::runtime_error(path + " is " + std::to_string(w) + "x" + std::to_string(h) +
                             " pixels, not " + std::to_string(width) + "x" +
                             std::to_string(height) + ": resize it as the README describes.");
  }
  file.get();  // one white space before the pixels
  std::vector<uint8_t> pixels(height * width * 3);
  file.read(reinterpret_cast<char*>(pixels.data()), pixels.size());
  return file ? pixels : throw std::runtime_error(path + " is truncated.");
}

// Find "threshold": {"value": ...} in the metadata. Quotes inside of its texts are escaped, so that
// the first match is the right one.
double find_threshold(const std::string& json) {
  const size_t value = json.find("\"value\":", json.find("\"threshold\":"));
  if (value == std::string::npos) throw std::runtime_error("the metadata holds no threshold.");
  return std::stod(json.substr(value + 8, 40));
}

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: score part.onnx photo.ppm...");
#ifndef _WIN32
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // official builds report usage from version 1.29 on
#endif
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "score");
  Ort::Session session(env, std::filesystem::path(arguments[1]).c_str(), Ort::SessionOptions());
  Ort::AllocatorWithDefaultOptions cpu;
  const auto json = session.GetModelMetadata().LookupCustomMetadataMapAllocated("fsad_edge", cpu);
  if (!json) throw std::runtime_error("the model was not written by  fsad-edge export.");
  const double threshold = find_threshold(json.get());
  // The only input without a default is `image`: [N, height, width, 3].
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  shape[0] = 1;
  const char *input = "image", *output = "score";
  int code = 0;
  for (int index = 2; index < count; ++index) {
    auto pixels = read_image(arguments[index], shape[1], shape[2]);
    const auto image = Ort::Value::CreateTensor(cpu.GetInfo(), pixels.data(), pixels.size(),
                                                shape.data(), shape.size());
    const float score = *session.Run({}, &input, &image, 1, &output, 1)[0].GetTensorData<float>();
    if (score > threshold) code = 1;
    std::printf("%s  score %.9g  threshold %.9g  %s\n", arguments[index], score, threshold,
                score > threshold ? "anomaly" : "good");
  }
  return code;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
