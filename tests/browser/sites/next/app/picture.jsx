export function Picture({ image, priority, sizes = priority ? "100vw" : "auto, 100vw", alt = image.alt, ...attributes }) {
  const fallback = image.sources.at(-1);
  const { width, height } = fallback.renditions.at(-1);
  const loading = priority ? { loading: "eager", fetchPriority: "high" } : { loading: "lazy" };
  return (
    <picture>
      {image.sources.slice(0, -1).map(({ type, srcset }) => (
        <source key={type} type={type} srcSet={srcset} sizes={sizes} />
      ))}
      <img {...loading} src={image.src} srcSet={fallback.srcset} sizes={sizes} width={width} height={height} alt={alt} decoding="async" {...attributes} />
    </picture>
  );
}
