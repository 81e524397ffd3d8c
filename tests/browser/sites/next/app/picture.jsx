export function Picture({ image, sizes = "100vw", alt = image.alt, ...attributes }) {
  const fallback = image.sources.at(-1);
  const { width, height } = fallback.renditions.at(-1);
  return (
    <picture>
      {image.sources.slice(0, -1).map(({ type, srcset }) => (
        <source key={type} type={type} srcSet={srcset} sizes={sizes} />
      ))}
      <img src={image.src} srcSet={fallback.srcset} sizes={sizes} width={width} height={height} alt={alt} loading="lazy" decoding="async" {...attributes} />
    </picture>
  );
}
