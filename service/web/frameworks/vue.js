// The entry `darkroom.js/vue`: a component that shows an image.

import { h } from "vue";
import { pictureElements } from "./picture.js";

/** Show an image of a manifest, a document, or a digest: the browser loads the best format that it supports, at the width that it needs. */
export function Picture(properties, { attrs }) {
  const { sources, img } = pictureElements({ ...properties, ...attrs });
  return h("picture", [...sources.map((source) => h("source", source)), h("img", img)]);
}

const size = [Number, String];

Picture.props = {
  image: Object,
  base: String,
  src: String,
  source: String,
  widths: Array,
  variant: String,
  quality: Object,
  formats: Array,
  width: size,
  height: size,
  sizes: String,
  alt: String,
  priority: Boolean,
};

// All other attributes are those of the <img>.
Picture.inheritAttrs = false;
