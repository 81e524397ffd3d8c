import { Picture } from "darkroom.js/react";
import Image from "next/image";
import photo from "../../photo.json";
import { DarkroomImage } from "./darkroom-image.js";

const { base, digest, width, height } = photo;
const common = { width, height, alt: "A photo", style: { width: "100%", height: "auto", display: "block" } };

// The names are those of tests/bench/paint.py.
const KINDS = {
  "img-1280": <img src="/1280.jpg" {...common} />,
  "img-2560": <img src="/2560.jpg" {...common} />,
  "next-image": <Image src="/original.jpg" sizes="100vw" preload {...common} />,
  "next-image-85": <Image src="/original.jpg" sizes="100vw" preload quality={85} {...common} />,
  "next-image-darkroom": <DarkroomImage base={base} src={digest} sizes="100vw" preload {...common} />,
  picture: <Picture base={base} src={digest} {...common} />,
  "picture-priority": <Picture base={base} src={digest} priority {...common} />,
};

export const generateStaticParams = () => Object.keys(KINDS).map((kind) => ({ kind }));

export default async function Page({ params }) {
  const { kind } = await params;
  return (
    <main>
      {KINDS[kind]}
      <p>{"A paragraph below the photo. ".repeat(20)}</p>
    </main>
  );
}
