"use client";

import { loader } from "darkroom.js/next";
import Image from "next/image";

/** The component of Next.js with URLs of Darkroom. */
export function DarkroomImage({ base, ...attributes }) {
  return <Image loader={loader({ base })} {...attributes} />;
}
