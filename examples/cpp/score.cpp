// Score images with a file that `fsad-edge export` wrote. The program needs only ONNX Runtime.
//
//     score part.onnx photo.ppm...
//
// The images are binary PPM files (P6, 8 bits) at the model's size, because the score depends on
// how they are resized (../README.md). Exit code 2: an error; else 1: an anomaly found; else 3: an
// image is not judged; else 0: all good.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
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

// Find "object": {... "key": number in the metadata; null is read as `none`. Quotes inside of its
// texts are escaped, so that the first match is the right one.
double find_number(const std::string& json, const char* object, const char* key, double none = 0) {
  const size_t start = json.find("\"" + std::string(object) + "\": {");
  const std::string name = "\"" + std::string(key) + "\": ";
  const size_t value = start == std::string::npos ? start : json.find(name, start);
  if (value == std::string::npos) {
    throw std::runtime_error(std::string("the metadata holds no ") + object + "." + key + ".");
  }
  const std::string text = json.substr(value + name.size(), 40);
  return text.rfind("null", 0) == 0 ? none : std::stod(text);
}

// The bounds beyond which an image is not judged (../../docs/format.md).
struct Judgement {
  double unlikeness, offset, highlight, contrast;
};

// Whether an image shows something at all, and no more than the bound allows of something else.
bool is_judged(const Judgement& bounds, const std::vector<uint8_t>& pixels, double image_score,
               std::vector<float> map) {
  std::vector<double> counts(256);
  double sum = 0, squares = 0;
  const double number = pixels.size() / 3.0;
  for (size_t index = 0; index < pixels.size(); index += 3) {
    const uint8_t value = std::max({pixels[index], pixels[index + 1], pixels[index + 2]});
    counts[value] += 1;
    sum += value;
    squares += double(value) * value;
  }
  const double mean = sum / number, variance = squares / number - mean * mean;
  int highlight = 0;  // the value that one pixel in a hundred is above
  for (double below = counts[0]; below < 0.99 * number; below += counts[++highlight]) continue;
  if (highlight < bounds.highlight || std::sqrt(std::max(variance, 0.0)) < bounds.contrast) {
    return false;  // black, dark, or without contrast
  }
  const size_t nearest = map.size() / 10;
  std::nth_element(map.begin(), map.begin() + nearest, map.end());
  const double distance = std::max(map[nearest] + bounds.offset, 1e-6);
  return std::sqrt(std::max(image_score, 1e-6) * distance) <= bounds.unlikeness;
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
  if (std::string(json.get()).find("\"locator\": {") != std::string::npos) {
    throw std::runtime_error(
        std::string(arguments[1]) + " finds the part in each photograph, which this program does "
        "not: score with fsad-edge, or make the part again with  fsad-edge finetune --locate off .");
  }
  const double threshold = find_number(json.get(), "threshold", "value");
  const Judgement bounds = {find_number(json.get(), "judgement", "unlikeness", INFINITY),
                            find_number(json.get(), "judgement", "offset"),
                            find_number(json.get(), "judgement", "highlight"),
                            find_number(json.get(), "judgement", "contrast")};
  // The only input without a default is `image`: [N, height, width, 3].
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  shape[0] = 1;
  const char *input = "image", *names[] = {"score", "image_score", "anomaly_map"};
  bool anomaly = false, unjudged = false;
  for (int index = 2; index < count; ++index) {
    auto pixels = read_image(arguments[index], shape[1], shape[2]);
    const auto image = Ort::Value::CreateTensor(cpu.GetInfo(), pixels.data(), pixels.size(),
                                                shape.data(), shape.size());
    const auto outputs = session.Run({}, &input, &image, 1, names, 3);
    const float score = *outputs[0].GetTensorData<float>();
    const float image_score = *outputs[1].GetTensorData<float>();
    const float* map = outputs[2].GetTensorData<float>();
    const size_t patches = outputs[2].GetTensorTypeAndShapeInfo().GetElementCount();
    const char* decision = score > threshold ? "anomaly" : "good";
    if (!is_judged(bounds, pixels, image_score, {map, map + patches})) decision = "not_judged";
    anomaly |= decision[0] == 'a';
    unjudged |= decision[0] == 'n';
    std::printf("%s  score %.9g  threshold %.9g  %s\n", arguments[index], score, threshold,
                decision);
  }
  return anomaly ? 1 : unjudged ? 3 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
