export default function Page() {
  return "A server of images";
}
